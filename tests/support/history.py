"""Stands for a run's history, which grows by itself."""

from array import array

from lmft_api.wire.report import EvaluationRow
from lmft_job.observers.metrics import Lines, StepLog


class Training:
    """Steps as they are done; ``more`` is what followers of a run call."""

    def __init__(self) -> None:
        self.losses, self.log = array("d"), StepLog()

    def train(self, count: int) -> None:
        """Do steps."""
        for _ in range(count):
            self.losses.append(1.0 / (len(self.losses) + 1))
            self.log.update(1e-3, 0.5)
            self.log.step_done(len(self.losses), len(self.losses) / 10, 1000.0)

    def more(self, lines: Lines, before: EvaluationRow | None) -> bytes:
        """Lines that are new."""
        return lines.more(self.losses[: self.log.last], self.log, [])
