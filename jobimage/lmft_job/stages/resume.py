"""Where an attempt resumes: the newest checkpoint that is complete and loads."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmft_api.wire.report import ResumePoint
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.checkpoints import Checkpoint, fetch_checkpoint, newest_verified
from lmft_job.checkpoints.loading import require_loadable
from lmft_job.storage import Store
from lmft_job.training.history import Resumed


def find_checkpoint(context: RunContext, store: Store, attempt: CurrentAttempt, model: Any) -> Resumed | None:
    """The newest checkpoint that is complete, verified and loads, on this disk; None to start from step 0.

    Rank 0 chooses, and the others fetch the same.
    """
    folder = context.folder / "resume"

    def loads(fetched: Path) -> None:
        require_loadable(fetched, model, own_trainer=context.settings.training.trainer_class is not None)

    def newest() -> dict[str, Any] | None:
        found = newest_verified(store, folder, context.observer.note, context.check, attempt.passed_over, loads)
        return None if found is None else asdict(found)

    chosen = context.group.from_main(newest)
    if chosen is None:
        return None
    found = Checkpoint(**chosen)
    if not context.world.main:
        fetch_checkpoint(store, found, folder, context.check)
        loads(folder)
    lost = max([0, *(step - found.step for step in attempt.earlier.values())])
    context.progress.resumed_from_step, context.progress.lost_steps = found.step, lost
    point = ResumePoint(step=found.step, lost_steps=lost, attempt=attempt.number)
    context.observer.resumed(point, found.attempt)
    return Resumed(folder, point)
