"""Bundled supernets: weights (safetensors) beside a JSON card that tells what they are."""
