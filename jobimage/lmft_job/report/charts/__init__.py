"""The curves of a run: which there are, and each as a line chart."""
