"""The types that every message shares, their rules, and their structural schemas."""
