"""A whole training step priced: parts, stretches, micro-batches, the worst moment. No torch."""
