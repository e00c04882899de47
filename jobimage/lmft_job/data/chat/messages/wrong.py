"""What is wrong with a row of conversations, in words."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lmft_job.data.problems import MOST_PROBLEMS, Problems

LONGEST_QUOTE = 60


class BadRowError(ValueError):
    """A row that cannot be trained on.

    Attributes:
        cause: its kind, a few words, by which dropped rows are counted.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "an object"
    return {str: "text", int: "a number", float: "a number", list: "a list"}.get(type(value), type(value).__name__)


def quoted(value: Any) -> str:
    """A value of the data in quotes, cut where it is long."""
    text = value if isinstance(value, str) else kind_of(value)
    return repr(text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…")


MISSING = "missing field"


class BadRowsFound:
    """The bad rows of a data set: reported as problems, or counted by cause where they are to be dropped."""

    def __init__(self, problems: Problems, *, drop: bool) -> None:
        self.causes: Counter[str] = Counter()
        self._problems = problems
        self._drop = drop
        self._missing: list[str] = []

    def add(self, field: str, place: str, error: BadRowError) -> None:
        """A row at a place; the field is the manifest's."""
        self.causes[error.cause] += 1
        if self._drop:
            return
        problem = f"spec.dataset.{field}: {place}: {error}"
        if error.cause == MISSING:
            if len(self._missing) <= MOST_PROBLEMS:
                self._missing.append(problem)
        else:
            self._problems.add(problem)

    def all_read(self, *, absent: bool) -> None:
        """Report the rows without a value, unless all of them are without: that is another problem."""
        for problem in () if absent else self._missing:
            self._problems.add(problem)
        self._missing = []
