"""The last that all processes do together where the model is divided: sample, and put its weights together again."""

from dataclasses import dataclass, replace

from lmft_job.adapters.merge import release
from lmft_job.distributed.group import SOLO
from lmft_job.sharding.divide import assemble
from lmft_job.stages.publish import answers_after
from lmft_job.stages.ranks.place import Placed
from lmft_job.training.loop import TrainingInputs
from lmft_job.training.trainer import Trained


@dataclass(frozen=True)
class Last:
    """With what rank 0 goes on alone.

    Attributes:
        job: with the whole model.
        answers: of the divided model; None where the model was whole all the time, and has not been asked.
    """

    job: TrainingInputs
    answers: list[str] | None = None


def finish_together(job: TrainingInputs, placed: Placed, trained: Trained, limit: int | None) -> Last:
    """Sample with a divided model, and put it together on rank 0's CPU; all processes call it."""
    if placed.blank is None:
        return Last(job)
    answers, world = answers_after(job, trained, limit), job.group.world
    whole = assemble(job.model, placed.blank, world)
    release(job.model)
    if not world.main:
        return Last(job, answers)
    return Last(replace(job, model=whole, group=SOLO), answers)
