"""The process itself: signals, its end in time, its secrets, its streams, and a child that can read little."""
