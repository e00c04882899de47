"""What a process does first that a pod's first process started as a rank. Imports nothing heavy."""

import ctypes
import faulthandler
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

PARENT = "LMFT_LAUNCHER_PID"
"""Process that a rank must not outlive."""
STACKS = "LMFT_STACKS_FILE"
"""File for the stacks of a rank's threads."""
STACKS_SIGNAL = signal.SIGUSR1
"""A rank writes the stacks of its threads into its file, whatever it is doing."""
FOUND = "found"
"""Folder of what the first rank of a pod has found for its other ranks, in what they share; of one start only."""
_SET_PARENT_DEATH_SIGNAL = 1
_open: list[TextIO] = []


def leave_stacks() -> None:
    """Write the stacks of this rank's threads into its file, unless they are there already."""
    for file in _open:
        if os.fstat(file.fileno()).st_size == 0:
            faulthandler.dump_traceback(file, all_threads=True)


def become_rank(environment: Mapping[str, str]) -> None:
    """From now on this process dies with the one that started it, and can be asked for its stacks.

    torchrun sets neither variable, and a rank that it started does without both.
    """
    if parent := environment.get(PARENT):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if str(os.getppid()) != parent:
            os._exit(128 + signal.SIGKILL)
    if path := environment.get(STACKS):
        stacks = open(path, "w")  # noqa: SIM115 - as long as the process
        faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)
        _open.append(stacks)
