"""The loss of a run over its steps, as far as its status tells it."""

from dataclasses import dataclass, field

from lmft_api.status import LMFineTuneStatus, finite


@dataclass
class History:
    """Losses seen while watching, by step; evaluations fill in what came before."""

    losses: dict[int, float] = field(default_factory=dict)

    def add(self, status: LMFineTuneStatus) -> None:
        """Add what a status contains; a resumed run overwrites the steps that it repeats."""
        for evaluation in status.evaluations or ():
            if (loss := finite(evaluation.train_loss)) is not None:
                self.losses.setdefault(evaluation.step, loss)
        progress = status.progress
        if progress is not None and progress.step is not None and (loss := finite(progress.loss)) is not None:
            self.losses[progress.step] = loss

    def curve(self) -> list[float]:
        """Losses in the order of steps."""
        return [self.losses[step] for step in sorted(self.losses)]

    def points(self) -> list[tuple[int, float]]:
        """Step and loss, in the order of steps."""
        return sorted(self.losses.items())
