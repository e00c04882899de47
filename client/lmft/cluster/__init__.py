"""The cluster: the only package that talks to the API server."""
