"""Importing less: what libraries import beside what a run needs waits until it is used, or is left out.

torch, transformers and their companions import each other wherever they are installed. Much of that serves one feature
in a hundred, and took half the time until the first step. Whatever asks for a deferred module gets the real one.
"""

from lmft_job.process.imports.leave_out import Unused, leave_nothing_out, leave_out, without_collections
from lmft_job.process.imports.slow import defer_slow_imports

__all__ = ["Unused", "defer_slow_imports", "leave_nothing_out", "leave_out", "without_collections"]
