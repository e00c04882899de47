"""What passes between operator, job and storage: the run file, progress, the result, the report."""
