"""One attempt at a job: its stages in order, and what they share."""
