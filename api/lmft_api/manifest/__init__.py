"""Manifests: reading them from YAML, and messages for everything that is wrong with them."""
