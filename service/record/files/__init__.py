"""Files: the artifact store and its garbage, and the folders in which attempts work."""
