"""Datasets: what users upload, checked and stored."""
