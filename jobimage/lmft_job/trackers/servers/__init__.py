"""Trackers that are reached over HTTP: MLflow and Weights & Biases."""
