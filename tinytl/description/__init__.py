"""What networks, methods and plans are, as plain data. No torch: the web process reads this."""
