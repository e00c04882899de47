"""The one table of figures: what is measured on the held-out data, and how every place names and shows it.

Status, report, progress reports, console, page, model card, ``lmft watch`` and kubectl's columns take names, digits and
direction from here. A new figure is a row here, its name at the tasks that have it (:mod:`lmft_api.tasks`), its fields
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
    """How a figure and its change are written for people."""

    SHARE = "share"
    """0 to 1, as a percentage; its change in points."""
    RATIO = "ratio"
    """Its change in per cent of what it was before."""
    PLAIN = "plain"
    """Its change as a difference."""


@dataclass(frozen=True)
class Figure:
    """A row of the table.

    Attributes:
        name: its field in status and report, and its name in progress reports; snake_case.
        title: at the head of a row or column.
        word: in running text and in plain lines: ``perplexity 49.61``.
        digits: after the point, in the status.
        better: which way it improves.
        scale: how it and its change are written.
        label: in the tables of a terminal, where that is not ``word``.
        unit: shown where there is room for it; empty where the title says it.
        function_of: name of the figure that it is computed from, such as the loss. That one judges its change and has
            the chart; a line that shows this figure leaves that one out.
        remark: what a reader has to know to read it, as a sentence.
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
        """Field of the same before training."""
        return f"baseline_{self.name}"

    @property
    def standard_error(self) -> str:
        """Field of its standard error."""
        return f"{self.name}_standard_error"

    @property
    def baseline_standard_error(self) -> str:
        """Field of the standard error before training."""
        return f"baseline_{self.name}_standard_error"

    @property
    def change_standard_error(self) -> str:
        """Field of the standard error of the change; a figure that is a function of another has none."""
        return f"{self.name}_change_standard_error"

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """Its fields in the results."""
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
"""In the order in which they are shown; the first that a run has is its result in short."""


def of_task(task: Task) -> list[Figure]:
    """The figures of a task, in the order of the table."""
    return [kind for kind in FIGURES if kind.name in TASKS[task].figures]


def headlines() -> list[Figure]:
    """The figures that are a result in short, in the order of the tasks."""
    return list(dict.fromkeys(of_task(task)[0] for task in Task))


def known(values: Any) -> Iterator[Figure]:
    """The figures that results, or an evaluation, hold.

    Args:
        values: an object with fields of the figures' names.
    """
    return (kind for kind in FIGURES if getattr(values, kind.name, None) is not None)


def decimal(value: float | None, digits: int = 4) -> str | None:
    """A number as the status has it, at most 32 characters; a model that is far off has a perplexity of 300 digits."""
    if value is None:
        return None
    return f"{value:.{digits}f}" if abs(value) < 1e15 else f"{value:.{digits}e}"
