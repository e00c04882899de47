"""Faster steps on a GPU with unchanged figures."""
