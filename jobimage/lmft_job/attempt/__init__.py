"""One attempt of a run: its context, the identity of the run's folder, its journal, and its result."""
