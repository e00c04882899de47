"""``lmft watch``: a run in the cluster, seen from a terminal."""
