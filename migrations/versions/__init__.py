"""One module per revision, oldest first by its file name."""
