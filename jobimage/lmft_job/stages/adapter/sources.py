"""What an adapter starts from: its base model, and the adapter of another run."""

from lmft_job.attempt.context import RunContext
from lmft_job.models.sources.source import content_hash
from lmft_job.stages.inputs import Sources


def model_identity(context: RunContext, sources: Sources) -> str | None:
    """What a resumed run must find again.

    Checkpoints of an adapter lack the base model, so its files count where it has no commit.

    Returns:
        The commit, else with an adapter a hash of the files; None if neither is known.
    """
    if context.settings.training.adapter is None or sources.model is None:
        return sources.revision
    return sources.revision or content_hash(sources.model.path)
