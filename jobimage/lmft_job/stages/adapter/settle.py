"""After training with an adapter: it is stored, merged into the base model, and what is published is measured again."""

import shutil
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from lmft_api.spec import Quantization
from lmft_api.wire.layout import ADAPTER, MODEL
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import AdapterFigures
from lmft_job import tasks
from lmft_job.adapters.attach import ADAPTER as ADAPTER_NAME
from lmft_job.adapters.attach import has_adapter
from lmft_job.adapters.merge import merged, release, worn
from lmft_job.adapters.serving import serving_notes
from lmft_job.adapters.state import save
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.journal import Fence
from lmft_job.distributed.group import SOLO
from lmft_job.errors import DivergedError, InvalidError
from lmft_job.evaluation.held_out import HeldOutFigures
from lmft_job.models.device import Arithmetic
from lmft_job.models.published import save_tokenizer
from lmft_job.models.weights import Loaded
from lmft_job.stages.inputs import Ingredients, build_again, make_model
from lmft_job.storage import Store, put_folder
from lmft_job.training.acceleration.selection import PLAIN
from lmft_job.training.loop import TrainingInputs

MOST_DRIFT = 0.005
"""Nats of the held-out loss by which merged weights may differ from the model with its adapter, without quantization:
rounding to BF16 costs a tenth of it."""


_UNMEASURED = (
    "The merged model was not measured, since it does not fit on one GPU; the figures are those of the divided model "
    "with its adapter."
)


@dataclass(frozen=True)
class Settled:
    """What a run publishes.

    Attributes:
        job: with the model that answers prompts: the published one if that was measured.
        figures: of record.
        trained_in: device and precision of the training.
        folder: name of the folder with the model that users load: ``model``, or ``adapter``.
        adapter: for the report; None if all weights were trained.
        warnings: what people must know of it.
    """

    job: TrainingInputs
    figures: HeldOutFigures
    trained_in: Arithmetic
    folder: str = MODEL
    adapter: AdapterFigures | None = None
    warnings: tuple[str, ...] = ()

    @property
    def saved_dtype(self) -> str:
        """Type of the published weights; those of an adapter are FP32."""
        return self.adapter.base_dtype if self.adapter is not None and self.adapter.merged else "float32"

    @property
    def evaluation_dtype(self) -> str:
        """Arithmetic of the figures of record."""
        if self.adapter is not None and self.adapter.quantized:
            return self.adapter.base_dtype
        return self.trained_in.evaluation_dtype


def settle(
    context: RunContext,
    job: TrainingInputs,
    inputs: Ingredients,
    built: Loaded,
    figures: HeldOutFigures,
    store: Store,
    fence: Fence,
) -> Settled:
    """Store the adapter, merge it where that is wanted, and measure the merged weights in their published type.

    Args:
        context: context of the attempt.
        job: with the trained model.
        inputs: the base model's folder.
        built: the base model as it was loaded.
        figures: of the trained model with its adapter.
        store: rooted at the run's folder.
        fence: of the attempt.

    Raises:
        InterruptedRunError: a later attempt has begun, or a stop was requested.
    """
    if not has_adapter(job.model):
        return Settled(job, figures, job.arithmetic)
    save_adapter(context, job, store, fence)
    quantized = job.settings.training.quantization == Quantization.NF4
    told = _told(job, built, figures, quantized=quantized)
    if not job.settings.output.merge and not quantized:
        return Settled(job, figures, job.arithmetic, ADAPTER, told)
    job.observer.phase(JobPhase.EVALUATING)
    release(job.model)  # its place is the published model's now
    if quantized:
        beside = worn(build_again(context, inputs, built.dtype).model, job.folder / ADAPTER)
        on_base = _measured(job, beside)
        told = told.model_copy(update={"base_loss": on_base.loss})
        if not job.settings.output.merge:
            return Settled(_with_model(job, beside), on_base, job.arithmetic, ADAPTER, told)
        release(beside)
    try:
        published = _merge(context, job, inputs, built.dtype)
        if not context.world.alone and not _fits(published, job.arithmetic.device):
            unmeasured = told.model_copy(update={"merged": True})
            return Settled(replace(job, model=published), figures, job.arithmetic, MODEL, unmeasured, (_UNMEASURED,))
        after = _measured(job, published)
    except (DivergedError, InvalidError, ValueError) as error:
        return _withheld(
            context, inputs, job, figures, told, f"merged in {_name(built.dtype)}, its weights are not usable ({error})"
        )
    told = told.model_copy(update={"merged_loss": after.loss, "merged": True})
    drift = after.loss - figures.loss
    if not quantized and abs(drift) > MOST_DRIFT:
        release(published)
        return _withheld(
            context,
            inputs,
            job,
            figures,
            told.model_copy(update={"merged": False}),
            f"merged and rounded to {_name(built.dtype)}, its held-out loss is {after.loss:.4f} and not "
            f"{figures.loss:.4f}, which is more than {MOST_DRIFT} nats off",
        )
    if quantized:
        return Settled(_with_model(job, published), after, job.arithmetic, MODEL, told)
    return Settled(_with_model(job, published), figures, job.arithmetic, MODEL, told)


def _told(job: TrainingInputs, built: Loaded, figures: HeldOutFigures, *, quantized: bool) -> AdapterFigures:
    """What is known of the adapter before it is merged."""
    config, wanted = job.model.peft_config[ADAPTER_NAME], job.settings.training.adapter
    heads, serving = bool(config.modules_to_save), []
    if wanted is not None and (tasks.of(job.settings.task).causal or heads):
        serving = serving_notes(wanted, architecture=type(job.model).__name__, heads=heads)
    return AdapterFigures(
        adapter_loss=figures.loss,
        quantized=quantized,
        base=config.base_model_name_or_path,
        base_revision=config.revision,
        base_dtype=_name(built.dtype),
        serving=serving,
    )


def _withheld(
    context: RunContext,
    inputs: Ingredients,
    job: TrainingInputs,
    figures: HeldOutFigures,
    told: AdapterFigures,
    why: str,
) -> Settled:
    shutil.rmtree(job.folder / MODEL, ignore_errors=True)
    said = f"The merged model is not published: {why}. Load the adapter beside its base model instead."
    job.observer.note(said)
    again = make_model(context, replace(inputs, built=None), job.arithmetic, job.folder / ADAPTER).model
    return Settled(replace(job, model=again, acceleration=PLAIN), figures, job.arithmetic, ADAPTER, told, (said,))


def save_adapter(context: RunContext, job: TrainingInputs, store: Store, fence: Fence) -> None:
    """Store the adapter and the tokenizer, before anything else that may fail."""

    def check() -> None:
        context.check()
        fence.check()

    job.observer.phase(JobPhase.SAVING)
    folder = job.folder / ADAPTER
    shutil.rmtree(folder, ignore_errors=True)
    save(job.model, folder)
    save_tokenizer(job.tokenizer, folder)
    fence.require()
    put_folder(store, ADAPTER, folder, check)


def _merge(context: RunContext, job: TrainingInputs, inputs: Ingredients, dtype: torch.dtype) -> Any:
    """The model as its users load it, from the folder that is published."""
    folder = job.folder / MODEL
    shutil.rmtree(folder, ignore_errors=True)
    model = merged(build_again(context, inputs, dtype).model, job.folder / ADAPTER, dtype)
    if model.can_generate():
        # A chat template has settled where its answers stop.
        model.generation_config = job.model.generation_config
    model.save_pretrained(folder)
    release(model)  # before it is read again
    trusted = bool(context.run.spec.model.trust_remote_code)
    factory = getattr(transformers, tasks.of(job.settings.task).auto_class)
    return factory.from_pretrained(
        str(folder), dtype="auto", use_safetensors=True, local_files_only=True, trust_remote_code=trusted
    )


def _fits(model: Any, device: torch.device) -> bool:
    """Whether a model that several devices held together fits on one of them, with room for an evaluation's batch."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    taken: int = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return 1.25 * taken <= int(free)


def _measured(job: TrainingInputs, model: Any) -> HeldOutFigures:
    return _with_model(job, model).evaluate(lambda: job.beat(0)).figures


def _with_model(job: TrainingInputs, model: Any) -> TrainingInputs:
    """The same job with another model on its device, computed by this process in the types of its own weights."""
    device = job.arithmetic.device
    # The published model has the head of the trained one, for which that was tried; peft's wrapper hides it.
    bare = isinstance(model, transformers.PreTrainedModel)
    kept = replace(PLAIN, of_targets=job.acceleration.of_targets and bare)
    return replace(job, model=model.to(device), arithmetic=Arithmetic(device), acceleration=kept, group=SOLO)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
