"""The ways a run can fail. Every external system's errors are translated into these, once, in its own module."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lmft_api.reasons import ExitCode, Reason

T = TypeVar("T")


class JobError(Exception):
    """A failure that a person can act on; its message is the whole explanation.

    Attributes:
        reason: from the closed list; part of the result message.
        exit_code: exit code of the process.
    """

    exit_code: ExitCode

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidError(JobError):
    """The manifest or the data is invalid. Holds every problem found, each beginning with its field path."""

    exit_code = ExitCode.INVALID

    def __init__(self, problems: Sequence[str], reason: Reason = Reason.INVALID_SPEC) -> None:
        # Two checks may find the same, such as a file that both a tokenizer and a model need.
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__(reason, "; ".join(self.problems))


class Findings:
    """Collects the problems found by several checks, so that all are reported at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, look: Callable[[], T]) -> T | None:
        """The check's result; None, with its problems collected, if it raises InvalidError."""
        try:
            return look()
        except InvalidError as error:
            self.problems += error.problems
            return None


class RefusedError(JobError):
    """Model, data set or storage refused or not found: another attempt would fail the same way."""

    exit_code = ExitCode.REFUSED


class AcceleratorMemoryError(JobError):
    """Even a batch of 1 does not fit into the accelerator's memory."""

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


class PeersError(JobError):
    """Other ranks or pods did not come, were lost, or cannot be reached: another attempt may find them."""

    exit_code = ExitCode.PEERS

    def __init__(self, message: str, reason: Reason = Reason.PEERS_MISSING) -> None:
        super().__init__(reason, message)


class NewerReleaseError(JobError):
    """A newer release wrote the input. An attempt with that release's image can read it: not a failure of the run."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)


class InterruptedRunError(JobError):
    """SIGTERM or Ctrl-C arrived; everything that could be saved is saved."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)
