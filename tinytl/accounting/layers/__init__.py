"""What each layer allocates and frees, event by event: the mirror of `tinytl.engine`. No torch."""
