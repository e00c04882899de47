"""Rows of the data as conversations in one form, or what is wrong with them."""
