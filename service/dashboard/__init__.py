"""The page at /: one HTML file that polls the API."""
