"""Where an attempt resumes: the newest checkpoint that is complete and loads."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lmft_api.wire.report import ResumePoint
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.checkpoints import Checkpoint, fetch_checkpoint, newest_verified
from lmft_job.checkpoints.loading import needed_files, require_loadable
from lmft_job.storage import DamagedFolderError, Store
from lmft_job.training.history import Resumed


def find_checkpoint(context: RunContext, store: Store, attempt: CurrentAttempt, model: Any) -> Resumed | None:
    """The newest checkpoint that is complete, verified and loads, on this disk; None to start from step 0.

    Rank 0 chooses, and the others fetch what they need of the same. One of which any of them finds its part damaged is
    used by none.
    """
    folder, needs = context.folder / "resume", partial(needed_files, model=model)

    def loads(fetched: Path) -> None:
        require_loadable(fetched, model, own_trainer=context.settings.training.trainer_class is not None)

    def newest() -> dict[str, Any] | None:
        found = newest_verified(store, folder, context.observer.note, context.check, attempt.passed_over, loads, needs)
        return None if found is None else asdict(found)

    def problem_with(chosen: Checkpoint) -> str:
        if context.world.main:
            return ""
        try:
            if fetch_checkpoint(store, chosen, folder, context.check, needs):
                loads(folder)
                return ""
            return "it was being removed"
        except DamagedFolderError as error:
            return str(error)

    while (chosen := context.group.from_main(newest)) is not None:
        found = Checkpoint(**chosen)
        problems = [said.decode() for said in context.group.gather_bytes(problem_with(found).encode())]
        if not any(problems):
            return _resumed(context, attempt, found, folder)
        rank = next(number for number, said in enumerate(problems) if said)
        context.observer.note(
            f"checkpoint of step {found.step} (attempt {found.attempt}) skipped by rank {rank}: {problems[rank]}"
        )
        attempt.passed_over.add(found.prefix)
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _resumed(context: RunContext, attempt: CurrentAttempt, found: Checkpoint, folder: Path) -> Resumed:
    lost = max([0, *(step - found.step for step in attempt.earlier.values())])
    context.progress.resumed_from_step, context.progress.lost_steps = found.step, lost
    point = ResumePoint(step=found.step, lost_steps=lost, attempt=attempt.number)
    context.observer.resumed(point, found.attempt)
    return Resumed(folder, point)
