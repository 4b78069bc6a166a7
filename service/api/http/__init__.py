"""What HTTP asks of every route: bodies, pages, entity tags, streams, problem documents."""
