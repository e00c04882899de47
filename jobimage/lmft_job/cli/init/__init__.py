"""``lmft init``: a manifest for the data at hand."""
