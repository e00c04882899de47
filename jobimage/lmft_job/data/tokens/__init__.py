"""From texts to ids: a table of words seen, and packing into flat arrays."""
