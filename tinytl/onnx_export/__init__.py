"""A delivered network as ONNX, written from its own description; no torch is needed for it."""
