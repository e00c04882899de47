"""The table of figures: what is measured on the held-out data, and how it is named and shown everywhere.

Status, report, progress reports, console, page, model card, ``lmft watch`` and kubectl's columns take names, digits and
direction from here. To add a figure: a row here, its name at the tasks that have it (:mod:`lmft_api.tasks`), its fields
in :mod:`lmft_api.status` and :mod:`lmft_api.wire.report` (tests compare), and its computation in the job.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from lmft_api.tasks import TASKS, Task


class Better(IntEnum):
    """Direction of an improvement, as the sign of the change."""

    UP = 1
    DOWN = -1


class Scale(StrEnum):
    """How a figure and its change are formatted for people."""

    SHARE = "share"
    """0 to 1, shown as a percentage; its change in percentage points."""
    RATIO = "ratio"
    """Its change in per cent of the earlier value."""
    PLAIN = "plain"
    """Its change as a difference."""


@dataclass(frozen=True)
class Figure:
    """A row of the table.

    Attributes:
        name: field name in status and report, and name in progress reports; snake_case.
        title: heading of a row or column.
        word: name in running text and plain lines: ``perplexity 49.61``.
        digits: digits after the decimal point in the status.
        better: direction of an improvement.
        scale: how the figure and its change are formatted.
        label: name in tables on a terminal, where that is not ``word``.
        unit: shown where there is room; empty where the title gives it.
        function_of: name of the figure that it is computed from, such as the loss. Changes are judged and charted by
            that one, and a line that shows this figure leaves that one out.
        remark: what a reader has to know to interpret it, as a sentence.
    """

    name: str
    title: str
    word: str
    digits: int
    better: Better
    scale: Scale = Scale.PLAIN
    label: str = ""
    unit: str = ""
    function_of: str | None = None
    remark: str = ""

    @property
    def baseline(self) -> str:
        """Name of the field with the value before training."""
        return f"baseline_{self.name}"

    @property
    def standard_error(self) -> str:
        """Name of the field with its standard error."""
        return f"{self.name}_standard_error"

    @property
    def baseline_standard_error(self) -> str:
        """Name of the field with the standard error before training."""
        return f"baseline_{self.name}_standard_error"

    @property
    def change_standard_error(self) -> str:
        """Name of the field with the standard error of the change; a figure computed from another has none."""
        return f"{self.name}_change_standard_error"

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """Names of its fields in the results."""
        return self.name, self.baseline, self.standard_error, self.baseline_standard_error


ACCURACY = Figure(
    name="accuracy",
    title="Accuracy",
    word="accuracy",
    digits=4,
    better=Better.UP,
    scale=Scale.SHARE,
)
PERPLEXITY = Figure(
    name="perplexity",
    title="Perplexity",
    word="perplexity",
    digits=2,
    better=Better.DOWN,
    scale=Scale.RATIO,
    function_of="eval_loss",
    remark="Perplexity is exp of the mean loss over the held-out target tokens, each weighing the same. It can be "
    "compared only between models with the same tokenizer, on the same blocks.",
)
EVAL_LOSS = Figure(
    name="eval_loss",
    title="Held-out loss",
    word="loss",
    digits=4,
    better=Better.DOWN,
    label="eval loss",
    unit="nats per target",
)

FIGURES = (ACCURACY, PERPLEXITY, EVAL_LOSS)
"""In display order; the first one that a run has is its short result."""


def of_task(task: Task) -> list[Figure]:
    """The figures of a task, in the order of the table."""
    return [kind for kind in FIGURES if kind.name in TASKS[task].figures]


def headlines() -> list[Figure]:
    """The figures used as short results, in the order of the tasks."""
    return list(dict.fromkeys(of_task(task)[0] for task in Task))


def known(values: Any) -> Iterator[Figure]:
    """The figures that results, or an evaluation, contain.

    Args:
        values: an object with attributes named like the figures.
    """
    return (kind for kind in FIGURES if getattr(values, kind.name, None) is not None)


def decimal(value: float | None, digits: int = 4) -> str | None:
    """A number as written to the status, at most 32 characters: the perplexity of a bad model may have 300 digits."""
    if value is None:
        return None
    return f"{value:.{digits}f}" if abs(value) < 1e15 else f"{value:.{digits}e}"
