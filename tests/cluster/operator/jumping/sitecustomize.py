"""Lets a test set the clock of a Python process: its time is the machine's and what a file says, in seconds."""

import os
import time
from pathlib import Path

_real, _file = time.time, Path(os.environ["LMFT_TEST_CLOCK"])


def _time() -> float:
    return _real() + float(_file.read_text())


time.time = _time
