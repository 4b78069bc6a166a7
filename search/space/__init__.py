"""What a supernet can be cut to, and what each candidate costs to train. No torch."""
