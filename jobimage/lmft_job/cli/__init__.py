"""The command line: ``python -m lmft_job.cli``, installed as ``lmft``."""
