"""The Hugging Face hub: translation of its client's errors, and uploads to it."""
