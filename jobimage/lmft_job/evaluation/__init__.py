"""Figures and answers on held-out data: what the model knows, and how far each figure may be off."""
