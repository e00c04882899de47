"""Figures and sample answers on held-out data, and the uncertainty of each figure."""
