"""What jobs say at their end, for the tests of the operator."""

from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus, Results
from lmft_api.wire.result import Counts, Result

DONE = Result(
    reason=Reason.COMPLETED,
    message="Perplexity fell from 62.3 to 49.6.",
    results=Results(perplexity="49.6", baseline_perplexity="62.3", model_uri="s3://models/test/model"),
    counts=Counts(steps=100, total_steps=100),
)


def stopped(step: int | None = None) -> Result:
    """The last word after SIGTERM, with a checkpoint or without."""
    checkpoint = None if step is None else CheckpointStatus(step=step, uri=f"s3://c/{step}")
    return Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM.", checkpoint=checkpoint)
