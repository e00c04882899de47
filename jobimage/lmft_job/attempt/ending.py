"""How a process ends: every outcome becomes a result with a reason, and an exit code."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from lmft_api.reasons import ExitCode, Reason
from lmft_api.text.shown import shown
from lmft_api.wire.result import Counts, Result
from lmft_job.attempt.context import RunContext
from lmft_job.data.tokens.core import panics_explained
from lmft_job.errors import InvalidError, JobError
from lmft_job.process.signals import Interrupt, StopNow

BUG_EXIT = 1
_REPORT_IT = (
    "the traceback is in the log. Run it again; if it fails again, report it with the traceback and the manifest"
)
_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"  # torch has no MemoryError


@dataclass(frozen=True)
class Ending:
    """The end of an attempt.

    Attributes:
        exit_code: exit code of the process.
        result: for the operator.
        problems: problems to list one by one, for people.
    """

    exit_code: int
    result: Result
    problems: tuple[str, ...] = ()


def conclude(run: Callable[[], Result], interrupt: Interrupt) -> Ending:
    """Run, and turn the result or exception into an ending. Bugs print a traceback on stderr."""
    try:
        with panics_explained():
            return Ending(ExitCode.DONE, run())
    except StopNow as stop:
        return _failed(ExitCode.INTERRUPTED, Reason.INTERRUPTED, str(stop))
    except InvalidError as error:
        return _failed(error.exit_code, error.reason, str(error), error.problems)
    except JobError as error:
        return _failed(error.exit_code, error.reason, str(error))
    except Exception as error:  # noqa: BLE001 - last resort: a result instead of none
        if interrupt.requested:
            # A library wrapped the stop in an error of its own.
            return _failed(ExitCode.INTERRUPTED, Reason.INTERRUPTED, interrupt.words)
        print(shown(traceback.format_exc()), file=sys.stderr)
        if isinstance(error, MemoryError) or _CPU_ALLOCATOR in str(error):
            return _failed(BUG_EXIT, Reason.OUT_OF_MEMORY, "the process ran out of memory; raise spec.resources.memory")
        words = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {words[0] if words else ''}"
        return _failed(BUG_EXIT, Reason.INTERNAL_ERROR, f"an unexpected error: {said}; {_REPORT_IT}")


def with_progress(ending: Ending, context: RunContext | None) -> Result:
    """Add the attempt's progress to a result; a completed one lacks the highest attempt number, and what is unsent."""
    result = ending.result
    if context is None:
        return result
    progress = context.progress
    if ending.exit_code == ExitCode.DONE:
        message = " ".join([result.message, *progress.unsent])
        return result.model_copy(update={"highest_attempt": progress.highest_attempt, "message": message})
    counts = Counts(
        steps=progress.step,
        total_steps=progress.total,
        resumed_from_step=progress.resumed_from_step,
        lost_steps=progress.lost_steps,
    )
    return result.model_copy(
        update={
            "checkpoint": progress.checkpoint,
            "counts": counts,
            "adjustments": progress.adjustments or None,
            "highest_attempt": progress.highest_attempt,
        }
    )


def _failed(code: int, reason: Reason, message: str, problems: tuple[str, ...] = ()) -> Ending:
    return Ending(int(code), Result(reason=reason, message=message), problems or (message,))
