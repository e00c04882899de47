"""A run as a line of text."""

from lmft_api.figures import EVAL_LOSS, known
from lmft_api.status import LMFineTuneStatus
from lmft_api.text.shown import one_line


def line(name: str, status: LMFineTuneStatus) -> str:
    """The run in one plain line, for pipes and logs."""
    condition, progress, results = status.succeeded, status.progress, status.results
    parts = [name, condition.reason if condition else "Pending"]
    if progress is not None:
        if progress.step is not None and progress.total_steps is not None:
            parts.append(f"step {progress.step}/{progress.total_steps}")
        parts += [f"loss {progress.loss}"] if progress.loss else []
        parts += [f"{progress.eta} left"] if progress.eta and not status.ended else []
    # The loss in this line is the training loss.
    parts += [f"{kind.word} {getattr(results, kind.name)}" for kind in known(results) if kind != EVAL_LOSS]
    if condition and condition.message:
        parts.append(condition.message)
    return one_line(" · ".join(parts))
