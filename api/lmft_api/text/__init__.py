"""Text for people: safe to show, and without credentials."""
