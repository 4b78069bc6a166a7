"""Tables, sessions, engines."""
