"""What runs in a pod and on a laptop: data, model, training, evaluation, report."""
