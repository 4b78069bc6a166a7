"""A supernet adapted to the target data, and candidates scored with its shared weights."""
