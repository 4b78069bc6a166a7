"""What users send, and the words that record, web and workers share."""
