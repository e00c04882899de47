"""Several observers that hear the same."""

from collections.abc import Sequence

from lmft_api.spec import Task
from lmft_job.observer import DataPrepared, Observer
from lmft_job.report.model import Evaluation, Report


class Broadcast:
    """Passes every event on, in the order given."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def headline(self, name: str, task: Task, model: str, device: str, precision: str) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.headline(name, task, model, device, precision)

    def data(self, figures: DataPrepared) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.data(figures)

    def baseline(self, figures: Evaluation) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.baseline(figures)

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
        for observer in self._observers:
            observer.step(step, total, epoch, loss, learning_rate, tokens_per_second)

    def evaluation(self, evaluation: Evaluation) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.evaluation(evaluation)

    def checkpoint(self, step: int) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.checkpoint(step)

    def note(self, text: str) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.note(text)

    def interrupted(self, step: int | None, again: str) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.interrupted(step, again)

    def done(self, report: Report) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.done(report)
