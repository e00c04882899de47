"""Training: the Trainer and its arguments, what is due at which step, and the history that a checkpoint keeps."""
