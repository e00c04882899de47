"""The steps of the recipe, one module for each heading."""
