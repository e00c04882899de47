"""From texts to ids: a table of known words, and packing into flat arrays."""
