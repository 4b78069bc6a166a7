"""What users get: rows of the record as they read them."""
