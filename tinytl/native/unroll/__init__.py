"""A network and its plan as a flat list of operations."""
