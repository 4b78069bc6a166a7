"""What holds a dataset's files: archives and folders, checked, and nothing unpacked."""
