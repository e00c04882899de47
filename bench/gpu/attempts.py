"""The recipe of ``lmft run`` in this process, so that several runs import the libraries once and share the device."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.layout import REPORT
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.ending import conclude
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.recipe import run as recipe


class FailedError(Exception):
    """A run ended early; ``reason`` is one of the closed list."""

    def __init__(self, exit_code: int, reason: str, message: str) -> None:
        super().__init__(f"exit {exit_code}, {reason}: {message}"[:600])
        self.reason = reason


def attempt(
    spec: dict[str, Any], folder: Path, name: str, observer: Observer | None = None, *, in_pod: bool = False
) -> dict[str, Any]:
    """Run a spec that has an output to its end; its report. ``in_pod``: as in a cluster, where a GPU must be there.

    Raises:
        FailedError: it did not get there.
    """
    scratch = folder / f"work-{name}"
    scratch.mkdir()
    context = RunContext(
        run=RunFile(name=name, namespace="bench", uid="bench", attempt=1, spec=parse_spec(spec)), in_pod=in_pod,
        folder=scratch, cache=folder / "cache", secrets=None, observer=observer or Observer(), hung=_end,
        restart=lambda: _end("memory ran out, and this process cannot be replaced"), interrupt=Interrupt(),
    )  # fmt: skip
    try:
        ending = conclude(lambda: recipe(context), context.interrupt)
        if ending.exit_code:
            raise FailedError(ending.exit_code, str(ending.result.reason), ending.result.message)
        written = context.run_store().get_bytes(REPORT)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    assert written is not None
    found: dict[str, Any] = json.loads(written)
    return found


def _end(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    os._exit(9)


@contextmanager
def variables(given: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
