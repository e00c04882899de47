"""Trials of a training step on tensors without memory: the same operations, the same lifetimes."""
