"""Trackers that ``spec.reportTo`` names get the metrics from a thread; what a tracker does never ends a run."""
