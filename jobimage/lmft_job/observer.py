"""What the recipe tells people while it runs; the console and the progress reporter listen."""

from dataclasses import dataclass
from typing import Protocol

from lmft_api.spec import Task
from lmft_job.report.model import DatasetFigures, Evaluation, Report


@dataclass(frozen=True)
class DataPrepared:
    """The data is ready.

    Attributes:
        figures: rows, blocks and tokens.
        block_size: tokens in a block; None where rows are padded instead.
        seconds: how long it took.
        reused: whether it was found prepared in storage.
        noun: what a row is called, in the plural.
    """

    figures: DatasetFigures
    block_size: int | None
    seconds: float
    reused: bool = False
    noun: str = "rows"


class Observer(Protocol):
    """Every method is cheap and never fails the run."""

    def headline(self, name: str, task: Task, model: str, device: str, precision: str) -> None:
        """The run begins; ``model`` is for people, such as ``gpt2 (4 layers, 3.6M parameters, from config)``."""

    def data(self, figures: DataPrepared) -> None:
        """The data is ready."""

    def baseline(self, figures: Evaluation) -> None:
        """The held-out data was evaluated before training (step 0)."""

    def step(
        self,
        step: int,
        total: int,
        epoch: float,
        loss: float | None,
        learning_rate: float | None,
        tokens_per_second: float | None,
    ) -> None:
        """An optimiser step is done; loss and throughput are the newest known. Steps count from 1 over all attempts."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """The held-out data was evaluated during or after training."""

    def checkpoint(self, step: int) -> None:
        """The checkpoint of a step is complete in storage."""

    def note(self, text: str) -> None:
        """One line worth knowing: resumed from step 400, a damaged checkpoint passed over, the batch halved."""

    def interrupted(self, step: int | None, again: str) -> None:
        """Stopped by Ctrl-C or SIGTERM; ``step`` is what is saved (None: nothing), ``again`` the command to go on."""

    def done(self, report: Report) -> None:
        """Finished; model and report lie at ``report.results.model_uri`` and ``report_uri``."""


class SilentObserver:
    """Hears all and says nothing; also a base for observers that care for a few events only."""

    def headline(self, name: str, task: Task, model: str, device: str, precision: str) -> None:
        """See Observer."""

    def data(self, figures: DataPrepared) -> None:
        """See Observer."""

    def baseline(self, figures: Evaluation) -> None:
        """See Observer."""

    def step(
        self,
        step: int,
        total: int,
        epoch: float,
        loss: float | None,
        learning_rate: float | None,
        tokens_per_second: float | None,
    ) -> None:
        """See Observer."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """See Observer."""

    def checkpoint(self, step: int) -> None:
        """See Observer."""

    def note(self, text: str) -> None:
        """See Observer."""

    def interrupted(self, step: int | None, again: str) -> None:
        """See Observer."""

    def done(self, report: Report) -> None:
        """See Observer."""
