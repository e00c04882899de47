"""Training: the Trainer and its arguments, the schedule within a run, and the history that a checkpoint keeps."""
