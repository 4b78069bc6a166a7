"""What the service takes and bears: load, records, workers, installation."""
