"""Ports: bounded connections, HTTP, probes, certificates."""
