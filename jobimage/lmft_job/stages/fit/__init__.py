"""Whether the run fits into its GPU, before weights are loaded, and the same for `lmft estimate`."""
