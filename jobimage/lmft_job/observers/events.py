"""Events of a run; the console and the progress reporter receive them."""

from collections.abc import Callable
from dataclasses import dataclass

from lmft_api.tasks import Task
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import DatasetFigures, EvaluationRow, Report, ResumePoint
from lmft_job.process.transfers import Transfer


@dataclass(frozen=True)
class Headline:
    """The run begins.

    Attributes:
        name: name of the run.
        task: task of the run.
        model: for people, such as ``gpt2 (4 layers, 3.6M parameters, from config)``.
        device: for people.
        precision: FP32, BF16 or FP16.
    """

    name: str
    task: Task
    model: str
    device: str
    precision: str


@dataclass(frozen=True)
class DataPrepared:
    """The data is ready.

    Attributes:
        figures: rows, blocks and tokens.
        block_size: tokens in a block; None where rows are padded instead.
        seconds: duration of the preparation.
        reused: whether it was found already prepared.
        noun: what a row is called, plural.
    """

    figures: DatasetFigures
    block_size: int | None
    seconds: float
    reused: bool = False
    noun: str = "rows"


@dataclass(frozen=True)
class StepDone:
    """An optimiser step is done.

    Attributes:
        step: counts from 1 over all attempts.
        total: steps planned.
        epoch: epochs done.
        loss: most recent loss.
        learning_rate: learning rate of the next step.
        tokens_per_second: smoothed.
    """

    step: int
    total: int
    epoch: float
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None


def resume_note(point: ResumePoint, saved_by: int) -> str:
    """One line for people: where the attempt resumes, and which steps it repeats."""
    repeated = f"; {point.lost_steps} steps are repeated" if point.lost_steps else ""
    return f"resumed from step {point.step}, saved by attempt {saved_by}{repeated}"


class Observer:
    """Ignores every event: observers override the methods they need. A method must be fast and never fail the run."""

    def headline(self, headline: Headline) -> None:
        """The run begins."""

    def data(self, prepared: DataPrepared) -> None:
        """The data is ready."""

    def phase(self, phase: JobPhase) -> None:
        """The job begins a new phase."""

    def working(self, on: str) -> None:
        """A phase of the recipe begins, by its name in the report's timings; empty: it has ended."""

    def transfer(self, transfer: Transfer) -> None:
        """Bytes of a model or of data have arrived; called from other threads too."""

    def resumed(self, point: ResumePoint, saved_by: int) -> None:
        """The attempt resumes from a checkpoint that attempt ``saved_by`` wrote."""

    def baseline(self, figures: EvaluationRow) -> None:
        """The held-out data was evaluated before training (step 0)."""

    def step(self, done: StepDone) -> None:
        """An optimiser step is done."""

    def evaluation(self, evaluation: EvaluationRow) -> None:
        """The held-out data was evaluated during or after training."""

    def checkpoint(self, step: int) -> None:
        """The checkpoint of a step is complete in storage."""

    def straggler(self, rank: str) -> None:
        """All other ranks wait for this one, step by step: ``rank 3 on node-b (1.8 times the median)``.

        Empty once there is none.
        """

    def note(self, text: str) -> None:
        """One line of notice: a damaged checkpoint skipped, the batch halved."""

    def interrupted(self, step: int | None, again: str) -> None:
        """Stopped by Ctrl-C or SIGTERM; ``step`` is the saved step (None: nothing), ``again`` the command to resume."""

    def done(self, report: Report) -> None:
        """Finished; model and report are at ``report.results.model_uri`` and ``report_uri``."""


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Passes each message on once, however often the same files are read."""
    said: set[str] = set()

    def unless_said(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return unless_said
