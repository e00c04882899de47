"""The process itself: whether it lives, what it counts, and what it logs."""
