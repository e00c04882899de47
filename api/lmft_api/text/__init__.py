"""Text for people: made safe to show, freed of credentials."""
