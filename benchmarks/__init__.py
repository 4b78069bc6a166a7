"""Scripts that print every figure that the docs quote."""
