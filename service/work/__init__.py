"""Work on jobs: the worker, its child process, and the stages that run there."""
