"""Conversations: read from rows, written with a template, marked by what is trained on, and packed."""
