"""How checkpoints are written: while training waits, or beside it, from a copy in the host's memory."""
