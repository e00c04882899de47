"""Shows a run while it is waited for: in a notebook as a card that changes, on a terminal as a bar, else as lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lmft.display.card import card
from lmft.display.history import History
from lmft.display.text import line
from lmft.runs import Run

Show = Callable[[Run], None]


@contextmanager
def showing(wanted: bool | None) -> Iterator[Show]:
    """What is to be called with every state of the run.

    Args:
        wanted: None: only in a notebook.
    """
    if wanted is not False and _in_notebook():
        yield _card()
    elif wanted and sys.stderr.isatty():
        with _bar() as show:
            yield show
    elif wanted:
        yield _lines()
    else:
        yield lambda run: None


def _in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, which shows HTML; a shell of IPython does not."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _card() -> Show:
    display: Any = sys.modules["IPython"].display
    history, handle = History(), display.display(display.HTML(""), display_id=True)

    def show(run: Run) -> None:
        handle.update(display.HTML(card(run.namespace, run.name, run.status, history)))

    return show


@contextmanager
def _bar() -> Iterator[Show]:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    text = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), text, console=console) as progress:
        task = progress.add_task("", total=100)

        def show(run: Run) -> None:
            percent = run.progress.percent if run.progress else None
            progress.update(task, completed=percent or 0, description=str(run))

        yield show


def _lines() -> Show:
    last = ""

    def show(run: Run) -> None:
        nonlocal last
        if (text := line(run.name, run.status)) != last:
            print(text, file=sys.stderr, flush=True)
            last = text

    return show
