"""The search: Once-For-All supernets, candidates, their price and their choice."""
