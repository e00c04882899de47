"""One attempt of a run: what it is given, whose folder it writes to, its journal, and its result."""
