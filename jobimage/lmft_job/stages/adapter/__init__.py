"""What the recipe does for an adapter: put it on the model, then merge it and measure what is published."""
