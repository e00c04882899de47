"""Accuracy on held-out rows."""
