"""The Hugging Face hub: its client's errors in our words, and uploads to it."""
