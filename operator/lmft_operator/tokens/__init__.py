"""Whose token it is, by the API server's word: asked for seldom, and not to be used up by strangers."""
