"""Manifests: read from YAML, and everything that is wrong with them in words."""
