"""What people see of a run: a line of text, HTML for notebooks. No I/O."""
