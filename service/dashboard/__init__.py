"""The page at /: static files that poll the API, and the routes that serve them."""
