"""What becomes of jobs when machines, networks and disks fail."""
