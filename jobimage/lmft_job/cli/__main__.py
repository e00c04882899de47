"""Entry of ``lmft``. Nothing heavy is imported until a command needs it; signals are handled from the start."""

import io
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

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
            require_training_libraries()
        from lmft_job.cli.commands import app

        app(obj=interrupt)
    except StopNow:
        sys.exit(ExitCode.INTERRUPTED)
    except ModuleNotFoundError as problem:
        if problem.name is None or _is_ours(problem.name):
            raise
        sys.stderr.write(
            f"lmft: the Python package {problem.name} is not installed; pip install 'lmfinetune[job]' installs all "
            "that this command needs\n"
        )
        sys.exit(ExitCode.INVALID)
    except OSError as problem:
        if long:
            raise
        # A full disk under ``lmft validate … > file``: the exit code must show that output was lost.
        sys.stderr.write(f"lmft: {problem.strerror or problem}\n")
        os._exit(1)  # without another attempt to flush


def _is_ours(module: str) -> bool:
    top = module.partition(".")[0]
    return top == "lmft" or top.startswith("lmft_")


def require_training_libraries() -> None:
    """Raise ModuleNotFoundError at once where they are not installed, rather than in the middle of a run."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def is_long(arguments: Sequence[str]) -> bool:
    """Whether the command (the first argument that is not an option) trains: stopping it saves a checkpoint."""
    return next((word for word in arguments if not word.startswith("-")), "") in _LONG_COMMANDS


if __name__ == "__main__":
    main()
