"""What can go wrong, as types that a program can tell apart; each message says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmft_api import KIND
from lmft_api.manifest.validation import Problem
from lmft_api.text.shown import one_line

if TYPE_CHECKING:
    from lmft.runs import Run

MAX_MESSAGE = 4096
"""Characters that are kept of what a server says."""


class LMFineTuneError(Exception):
    """Base of all errors of this package. The message is one that a terminal and a log can show."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, MAX_MESSAGE))


class NoCluster(LMFineTuneError):
    """There is no kubeconfig, or not this context in it, and this is not a pod of a cluster."""


class Unreachable(LMFineTuneError):
    """The API server does not answer, or says that it cannot work at present. Worth another try later."""


class Refused(LMFineTuneError):
    """The API server answers, and does not do it.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unauthorized(Refused):
    """The API server does not know who asks: the credentials are missing, wrong or too old."""


@dataclass(frozen=True)
class Rule:
    """A permission, as a rule of RBAC grants it.

    Attributes:
        group: API group; empty for Kubernetes' own.
        namespace: empty for all of them.
    """

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f'{{apiGroups: ["{self.group}"], resources: ["{self.resource}"], verbs: ["{self.verb}"]}}'

    @property
    def where(self) -> str:
        """Where it is missing, for people."""
        return f"in namespace {self.namespace}" if self.namespace else "in all namespaces"


class Forbidden(Refused):
    """Not allowed.

    Attributes:
        rule: the permission that is missing; None where something else forbids it, such as a quota or a policy.
    """

    def __init__(self, message: str, status: int = 403, rule: Rule | None = None) -> None:
        super().__init__(message, status)
        self.rule = rule


class NotFound(Refused):
    """There is no such run (any more), no such namespace, or LMFineTune is not installed in the cluster."""


class Conflict(Refused):
    """A run of this name exists already, or it is no longer the one that was meant."""


class InvalidManifest(LMFineTuneError):
    """The manifest has mistakes.

    Attributes:
        problems: all of them, each with its field (``spec.dataset.textField``), what to do, and its line in a file.
    """

    def __init__(self, title: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("" if len(self.problems) == 1 else "s")
        super().__init__(f"{title}: {count}")
        # One problem a line; each line is made safe by itself.
        lines = [f"{self.args[0]}", *(f"  {one_line(_located(problem), MAX_MESSAGE)}" for problem in self.problems)]
        self.args = ("\n".join(lines),)


def _located(problem: Problem) -> str:
    return f"line {problem.line}: {problem}" if problem.line else str(problem)


class RunFailed(LMFineTuneError):
    """The run has ended without success.

    Attributes:
        run: as it ended.
        reason: one of the documented reasons, such as Diverged.
        remedy: what to do about it; empty where this release does not know the reason.
    """

    def __init__(self, run: "Run") -> None:
        self.run, self.reason, self.remedy = run, run.reason, run.remedy
        said = f": {run.message}" if run.message else ""
        todo = f" What to do: {self.remedy}" if self.remedy else ""
        super().__init__(f"{KIND} {run.namespace}/{run.name} failed, {run.reason}{said}{todo}")


class ReportUnavailable(LMFineTuneError):
    """The run has no report yet, or it cannot be read from here."""


class WaitTimeout(LMFineTuneError, TimeoutError):
    """The run has not ended within the given time; it continues.

    Attributes:
        run: as it was seen last.
    """

    def __init__(self, run: "Run", seconds: float) -> None:
        self.run = run
        super().__init__(f"{KIND} {run.namespace}/{run.name} has not ended within {seconds:g} s; it is {run.reason}")
