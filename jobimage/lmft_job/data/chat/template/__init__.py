"""Conversations as text: the template, and where it writes the turns."""
