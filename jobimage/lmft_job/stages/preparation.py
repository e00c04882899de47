"""The prepare stage: what it stores for the train stage, and its result."""

import json

from lmft_api.addresses import in_storage
from lmft_api.reasons import Reason
from lmft_api.status import Provenance
from lmft_api.wire.layout import STAGED, STAGED_DATA
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import spec_hash
from lmft_job.attempt.context import RunContext
from lmft_job.stages.inputs import Ingredients
from lmft_job.storage import Store, publish_folder


def finish_preparation(context: RunContext, store: Store, ingredients: Ingredients) -> Result:
    """End the prepare stage: store what the train stage starts from."""
    stage(context, store, ingredients)
    figures = ingredients.data.figures
    model = ingredients.sources.model
    return Result(
        reason=Reason.COMPLETED,
        message=f"prepared: {figures.train_rows:,} rows to train on, {figures.eval_rows:,} held out",
        adjustments=context.progress.adjustments or None,
        provenance=Provenance(
            image=context.run.image,
            dataset_fingerprint=figures.fingerprint,
            model_revision=model.revision if model else None,
            spec_hash=spec_hash(context.run.spec),
            seed=context.settings.training.seed,
        ),
    )


def stage(context: RunContext, store: Store, ingredients: Ingredients) -> None:
    """Store what the train stage starts from."""
    sources, spec = ingredients.sources, context.run.spec.model
    for name, folder, address in (
        ("model", sources.model, spec.name),
        ("tokenizer", sources.tokenizer, spec.tokenizer.name if spec.tokenizer else None),
    ):
        # A model in object storage or on a volume is as near to the next pod as the run's own folder.
        if folder and address and not in_storage(address):
            labels: dict[str, int | str] = {"revision": folder.revision or ""}
            publish_folder(store, f"{STAGED}/{name}", folder.path, labels, context.check)
    store.put_bytes(STAGED_DATA, json.dumps({"fingerprint": ingredients.data.fingerprint}).encode())
