"""Models and tokenizers: configured, built, loaded, and saved."""
