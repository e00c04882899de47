"""What is wrong with a row of conversations, in words."""

import re
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
        self._alike: dict[tuple[str, str, str], list[str]] = {}
        self._rows: Counter[tuple[str, str, str]] = Counter()

    def add(self, field: str, place: str, error: BadRowError) -> None:
        """A row at a place; the field is the manifest's."""
        self.causes[error.cause] += 1
        if not self._drop:
            self.problem(field, place, str(error), error.cause)

    def problem(self, field: str, place: str, said: str, cause: str = "") -> None:
        """Something that is wrong with a row; what is said alike of several is told once."""
        key = (field, cause, said)
        if key not in self._alike and len(self._alike) >= MOST_PROBLEMS:
            self._problems.more += 1
            return
        self._rows[key] += 1
        places = self._alike.setdefault(key, [place])
        places[0] = min(places[0], place, key=_in_order)

    def report(self, *, absent: bool = False) -> None:
        """Report what was found, in the order of the rows.

        Args:
            absent: whether no row has a value, which is another problem and told elsewhere.
        """
        for key, (place,) in sorted(self._alike.items(), key=lambda item: _in_order(item[1][0])):
            field, cause, said = key
            more = self._rows[key] - 1
            others = f" and {more:,} more row{'s' * (more > 1)}" if more else ""
            if not (absent and cause == MISSING):
                self._problems.add(f"spec.dataset.{field}: {place}{others}: {said}")
        self._alike, self._rows = {}, Counter()


def _in_order(place: str) -> list[str | int]:
    """Sorts places by their files and the numbers of their lines."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", place)]
