"""Training a model whose weights are divided among processes: Trainer's loop, and each one's part of a checkpoint."""
