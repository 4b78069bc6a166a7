"""Whole jobs, and what a user would do instead on the same images."""
