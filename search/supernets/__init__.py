"""The supernets that there are: bundled here, official ones to fetch, a user's file. No torch."""
