"""Who searches: this project's sampler, and its peers."""
