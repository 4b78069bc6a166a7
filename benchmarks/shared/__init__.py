"""What families of benchmarks share."""
