"""The process itself: health, clock, metrics and logs."""
