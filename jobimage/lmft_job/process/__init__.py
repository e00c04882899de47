"""The process itself: signals, ending in time, secrets, streams, and a child process with restricted access."""
