"""Sweeps: one manifest with several values of some fields, here or as manifests for a cluster."""
