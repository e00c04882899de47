"""Observation of the cluster: watches and lists feed a cache, and a changed object triggers a look at its run."""
