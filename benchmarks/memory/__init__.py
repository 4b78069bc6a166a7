"""What training takes: published, stock PyTorch, tinyfit; and its pace."""
