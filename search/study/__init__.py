"""The search: batches of candidates within the limits, the front, the choice."""
