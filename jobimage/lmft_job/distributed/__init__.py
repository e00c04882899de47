"""A run of several processes: who they are, what each of them does, and what they agree on."""
