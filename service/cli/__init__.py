"""The command `tinyfit`."""
