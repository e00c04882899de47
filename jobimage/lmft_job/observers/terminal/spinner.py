"""A spinner with the seconds, for what takes more than a moment and prints only its end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from lmft_api.text.shown import one_line
from lmft_job.observers.eta import TransferPace
from lmft_job.process.transfers import Told, Transfer, silent


class Spinner:
    """Says what is worked on, from its start until it is stopped, and leaves nothing behind.

    Args:
        console: of a terminal.
        on: what is worked on.
    """

    def __init__(self, console: Console, on: str) -> None:
        columns = (TextColumn(" "), SpinnerColumn(), TextColumn("{task.description}", style="dim"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._on = on
        self._task: TaskID = self._progress.add_task(on, total=None)
        self._progress.start()

    def say(self, text: str) -> None:
        """What is shown; without text again what is worked on."""
        self._progress.update(self._task, description=one_line(text) or self._on)

    def stop(self) -> None:
        """Remove it."""
        self._progress.stop()


@contextmanager
def waiting(on: str, stream: TextIO | None = None) -> Iterator[Told]:
    """A spinner on a terminal's standard error, which standard output's readers do not see; elsewhere nothing.

    Yields what is told of transfers meanwhile: their bytes are shown.
    """
    console = Console(file=stream or sys.stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield silent
        return
    spinner, paces = Spinner(console, on), dict[str, TransferPace]()

    def tell(transfer: Transfer) -> None:
        now = time.monotonic()
        if transfer.ended:
            paces.pop(transfer.name, None)
            spinner.say("")
        else:
            spinner.say(paces.setdefault(transfer.name, TransferPace(transfer, now)).words(transfer, now))

    try:
        yield tell
    finally:
        spinner.stop()
