"""Pure arithmetic on a status: conditions, attempts, progress, and when a change is written."""
