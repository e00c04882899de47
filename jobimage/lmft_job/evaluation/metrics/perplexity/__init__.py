"""Perplexity on held-out tokens."""
