"""The child process as its worker sees it, how it ends, and what ties it to its parent."""
