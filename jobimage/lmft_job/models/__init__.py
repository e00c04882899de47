"""Models and tokenizers: configuration, building, loading, and saving."""
