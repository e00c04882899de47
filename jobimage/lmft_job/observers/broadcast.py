"""One observer that passes events to several."""

from collections.abc import Sequence

from typing_extensions import override

from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import EvaluationRow, Report, ResumePoint
from lmft_job.observers.events import DataPrepared, Headline, Observer, StepDone
from lmft_job.process.transfers import Transfer


class Broadcast(Observer):
    """Passes every event to all observers, in the order given."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    @override
    def headline(self, headline: Headline) -> None:
        for observer in self._observers:
            observer.headline(headline)

    @override
    def data(self, prepared: DataPrepared) -> None:
        for observer in self._observers:
            observer.data(prepared)

    @override
    def phase(self, phase: JobPhase) -> None:
        for observer in self._observers:
            observer.phase(phase)

    @override
    def working(self, on: str) -> None:
        for observer in self._observers:
            observer.working(on)

    @override
    def transfer(self, transfer: Transfer) -> None:
        for observer in self._observers:
            observer.transfer(transfer)

    @override
    def resumed(self, point: ResumePoint, saved_by: int) -> None:
        for observer in self._observers:
            observer.resumed(point, saved_by)

    @override
    def baseline(self, figures: EvaluationRow) -> None:
        for observer in self._observers:
            observer.baseline(figures)

    @override
    def step(self, done: StepDone) -> None:
        for observer in self._observers:
            observer.step(done)

    @override
    def evaluation(self, evaluation: EvaluationRow) -> None:
        for observer in self._observers:
            observer.evaluation(evaluation)

    @override
    def checkpoint(self, step: int) -> None:
        for observer in self._observers:
            observer.checkpoint(step)

    @override
    def straggler(self, rank: str) -> None:
        for observer in self._observers:
            observer.straggler(rank)

    @override
    def note(self, text: str) -> None:
        for observer in self._observers:
            observer.note(text)

    @override
    def interrupted(self, step: int | None, again: str) -> None:
        for observer in self._observers:
            observer.interrupted(step, again)

    @override
    def done(self, report: Report) -> None:
        for observer in self._observers:
            observer.done(report)
