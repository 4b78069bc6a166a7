"""The product: settings, database, API, worker, pipeline and command line."""
