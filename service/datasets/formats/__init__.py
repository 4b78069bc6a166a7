"""How datasets lie in archives: other tools' exports, each in a file of its own.

A format's `read` takes the listing of a container and says where its images belong, or None where
the container is none of its kind.
"""
