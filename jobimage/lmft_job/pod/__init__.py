"""A run in a pod: ``python -m lmft_job.pod``. The run file in, a result in the termination message out."""
