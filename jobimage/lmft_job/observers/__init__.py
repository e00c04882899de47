"""Observers of a run: the console, and the progress reports to the operator."""
