"""Where a job's tasks run: in its own process, in several of this machine, or on a Ray cluster."""
