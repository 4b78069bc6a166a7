"""Webhooks: a job's end told to a URL of its owner's, signed, and again where nobody answers."""
