"""The Job of an attempt as plain data, and what a manifest may ask for."""
