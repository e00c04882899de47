"""What a run starts from: the folders of its model and tokenizer, and the adapter of another run."""
