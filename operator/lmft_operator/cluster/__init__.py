"""Access to the API server; no other package talks to it."""
