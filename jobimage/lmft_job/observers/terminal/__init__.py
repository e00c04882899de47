"""What a run says on a terminal, or as plain lines in a file."""
