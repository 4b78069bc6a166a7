"""What a real training takes, measured in a fresh process, to hold against its price."""
