"""The ways a run can fail. Every outside system's errors are translated into these, once, in its own module."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lmft_api.reasons import ExitCode, Reason

T = TypeVar("T")


class JobError(Exception):
    """A failure that a person can act on; its text is the whole explanation.

    Attributes:
        reason: from the closed list, goes into the result message.
        exit_code: how the process ends.
    """

    exit_code: ExitCode

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidError(JobError):
    """The manifest or the data cannot work. Holds every problem found, each beginning with its field path."""

    exit_code = ExitCode.INVALID

    def __init__(self, problems: Sequence[str], reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(reason, "; ".join(problems))
        self.problems = tuple(problems)


class Findings:
    """Collects what several checks find wrong, so that all of it is reported at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, look: Callable[[], T]) -> T | None:
        """The look's answer; None, and its problems noted, when it raises InvalidError."""
        try:
            return look()
        except InvalidError as error:
            self.problems += error.problems
            return None


class RefusedError(JobError):
    """Model, data set or storage refused or not found: another attempt would end the same."""

    exit_code = ExitCode.REFUSED


class AcceleratorMemoryError(JobError):
    """Even a batch of 1 does not fit."""

    exit_code = ExitCode.ACCELERATOR_MEMORY

    def __init__(self, message: str) -> None:
        super().__init__(Reason.ACCELERATOR_OUT_OF_MEMORY, message)


class DivergedError(JobError):
    """The loss or an evaluation became NaN or infinite."""

    exit_code = ExitCode.DIVERGED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DIVERGED, message)


class UnavailableError(JobError):
    """Storage or hub unreachable or failing after all retries: another attempt may succeed."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, reason: Reason = Reason.STORAGE_UNAVAILABLE) -> None:
        super().__init__(reason, message)


class NewerReleaseError(JobError):
    """A newer release wrote what this one is to read. An attempt that runs its image can: not the run's failure."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)


class InterruptedRunError(JobError):
    """SIGTERM or Ctrl-C arrived; what there was to save is saved."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)
