"""The files that a device trainer reads and writes: programs, images, states."""
