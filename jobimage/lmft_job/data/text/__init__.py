"""Texts of a data set: found in its rows, gathered, and kept on disk."""
