"""Rows that several texts share without seeing each other: documents of a block, conversations of a pack."""
