"""How good the search is at finding the front, and what pricing takes."""
