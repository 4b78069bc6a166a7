"""Training of a supernet from the start, or further: one set of weights, every subnet good."""
