"""Runs a training step in little memory: layers with a backward of their own, and no autograd."""
