"""The HTTP API. `service.api.app.create_app` makes it."""
