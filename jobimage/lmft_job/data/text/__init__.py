"""Texts of a data set: found in its rows, collected, and stored on disk."""
