"""Adapters (LoRA, DoRA) by peft: put on a frozen model, saved, read back, merged, and where they can be served."""
