"""Decides what to do about one run: pure functions from what is observed to a wanted Job and a status."""
