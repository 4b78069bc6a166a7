"""Operations on tensors that layers are made of, forward and backward. No modules, no state."""
