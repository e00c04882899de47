"""Entry of ``lmft``. Nothing heavy is imported until a command needs it; a stop is heeded from the first moment."""

import io
import sys

from lmft_job.interrupt import INTERRUPT, INTERRUPTED_EXIT, StopNow

_LONG_COMMANDS = frozenset({"run", "demo"})


def main() -> None:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What an old locale cannot write is written as an escape, and ends nothing.
            stream.reconfigure(errors="backslashreplace")
    try:
        if _LONG_COMMANDS.intersection(sys.argv[1:]):
            INTERRUPT.install()
        from lmft_job.commands import app

        app()
    except StopNow:
        sys.exit(INTERRUPTED_EXIT)


if __name__ == "__main__":
    main()
