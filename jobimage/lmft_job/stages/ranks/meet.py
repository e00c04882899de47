"""Where the processes of a run meet: from there on they do the same, each with its rows of a step."""

from dataclasses import replace
from typing import Any

from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.identity import RunIdentity, claim
from lmft_job.attempt.journal import Begun
from lmft_job.distributed.process_group import join
from lmft_job.distributed.shares import plan_step
from lmft_job.errors import InvalidError
from lmft_job.stages.check import Start
from lmft_job.stages.inputs import Ingredients
from lmft_job.stages.ranks.turns import rendezvous_seconds


def meet_and_claim(context: RunContext, start: Start, inputs: Ingredients, model: str | None) -> Start:
    """Wait for the other processes, if there are any, and store which run owns the folder.

    Args:
        context: context of the attempt; gets the group.
        start: what this process starts with.
        inputs: ready for training.
        model: identity of the model, see :class:`RunIdentity`.

    Returns:
        What all processes start with.

    Raises:
        InvalidError: they see different data or models, there are more processes than rows in a step, or data or
            model differ from those that the run started with.
    """
    if context.world.alone:
        start = replace(start, rows=step_rows(context, start.began))
    else:
        start = _meet(context, start, inputs, model)
    if start.rows is not None:
        plan_step(start.rows, context.settings.training.per_device_batch_size, context.world.size)
    claim(context, start.store, start.began, inputs.data.fingerprint, model, inputs.day, start.rows)
    return start


def _meet(context: RunContext, start: Start, inputs: Ingredients, model: str | None) -> Start:
    """Wait for the others, once data and model are here, and take over from rank 0 what it has found."""
    cuda = start.arithmetic.device.type == "cuda"
    context.group = join(context.world, cuda=cuda, seconds=rendezvous_seconds(), paused=context.watchdog.paused)
    ours, found = start.attempt.ours, {"data": inputs.data.fingerprint, "model": model, "day": inputs.day}
    said: dict[str, Any] = context.group.from_main(
        lambda: {
            "attempt": [ours.number, ours.pod, list(ours.before)],
            "rows": step_rows(context, start.began),
            "found": found,
        }
    )
    if context.group.any(said["found"] != found):
        differs = ", ".join(name for name, value in found.items() if value != said["found"][name]) or "in another pod"
        raise InvalidError(
            [
                f"spec.dataset: rank {context.world.rank} of {context.world.size} sees other data or another model "
                f"than rank 0 ({differs}); all pods must read the same files"
            ]
        )
    number, pod, before = said["attempt"]
    attempt = replace(start.attempt, ours=Begun(number, pod, tuple(before)))
    return replace(start, attempt=attempt, rows=said["rows"])


def step_rows(context: RunContext, began: RunIdentity | None) -> int | None:
    """Rows of an optimiser step of all processes; None where one process trains, as the manifest says.

    The first attempt that trains decides it, and later ones keep it, with whatever number of processes.
    """
    training, world = context.settings.training, context.world
    if context.run.stage == Stage.PREPARE:
        return None
    if began is not None and began.effectiveBatch is not None:
        return began.effectiveBatch
    if training.batch_size is not None:
        return training.batch_size
    trained = began is not None and began.stage != Stage.PREPARE
    processes = 1 if trained else world.size
    rows = processes * training.per_device_batch_size * training.gradient_accumulation_steps
    return None if world.alone else rows
