"""Ports: connection limits, HTTP, probes, certificates."""
