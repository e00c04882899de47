"""Entry of ``lmft``. Nothing heavy is imported until a command needs it; signals are handled from the start."""

import io
import os
import sys
from collections.abc import Sequence

from lmft_api.reasons import ExitCode
from lmft_job.process.signals import Interrupt, StopNow
from lmft_job.process.streams import use_resilient_streams

_LONG_COMMANDS = frozenset({"run", "demo"})


def main() -> None:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that an old locale cannot encode are escaped instead of raising.
            stream.reconfigure(errors="backslashreplace")
    long, interrupt = is_long(sys.argv[1:]), Interrupt()
    try:
        if long:
            use_resilient_streams()
            interrupt.install()
        from lmft_job.cli.commands import app

        app(obj=interrupt)
    except StopNow:
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as problem:
        if long:
            raise
        # A full disk under ``lmft validate … > file``: the exit code must show that output was lost.
        sys.stderr.write(f"lmft: {problem.strerror or problem}\n")
        os._exit(1)  # without another attempt to flush


def is_long(arguments: Sequence[str]) -> bool:
    """Whether the command (the first argument that is not an option) trains: stopping it saves a checkpoint."""
    return next((word for word in arguments if not word.startswith("-")), "") in _LONG_COMMANDS


if __name__ == "__main__":
    main()
