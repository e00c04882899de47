"""``lmft watch``: follows a run in the cluster from a terminal."""
