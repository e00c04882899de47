"""What makes a step fast on a GPU and leaves its figures as they are."""
