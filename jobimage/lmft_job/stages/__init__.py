"""The headings of the recipe, a module for each."""
