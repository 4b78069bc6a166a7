"""The record: jobs and all that belongs to them, in the database and on disk."""
