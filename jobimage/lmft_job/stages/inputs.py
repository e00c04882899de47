"""Inputs of a run: tokenizer, data, model. From the hub, storage, or the run's prepare stage."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lmft_api.spec import Compile
from lmft_api.wire.layout import STAGED_DATA
from lmft_api.wire.run_file import Stage
from lmft_job import tasks
from lmft_job.adapters.attach import Base
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.identity import RunIdentity, same_software
from lmft_job.attempt.training import TrainingAttempt
from lmft_job.data.build import trained_size
from lmft_job.data.chat import asking
from lmft_job.data.chat.template.rendering import ChatTemplate
from lmft_job.data.labels import model_labels
from lmft_job.data.masking import MaskedBlocks, require_masks
from lmft_job.data.prepared import Prepared, prepare, reopen
from lmft_job.data.rows import OneEnd, Padding, PadRows
from lmft_job.errors import AcceleratorMemoryError, Findings
from lmft_job.evaluation.samples import check_prompts
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model, load_config, load_tokenizer, ready_tokenizer
from lmft_job.models.config import fresh_config, position_limit, require_head, take_padding
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import pads_left
from lmft_job.models.weights import Loaded
from lmft_job.observers.events import once
from lmft_job.stages.adapter.wear import require_adaptable, wear
from lmft_job.stages.check import Start
from lmft_job.stages.fit.memory import fit_before_data, fit_to_data
from lmft_job.stages.ranks.turns import first_loads, from_first
from lmft_job.stages.rehearsal import Rehearsed, rehearse
from lmft_job.stages.sources.find import Sources
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note
from lmft_job.training.acceleration.buckets import PaddedRows
from lmft_job.training.acceleration.selection import choose_acceleration
from lmft_job.training.batch import is_shortage
from lmft_job.training.loop import TrainingInputs, steps_of
from lmft_job.training.trainer import computes_own_loss


@dataclass(frozen=True)
class Ingredients:
    """Inputs that are ready for training.

    Attributes:
        tokenizer: has everything that the task needs.
        config: configuration of the model.
        limit: tokens that fit into the model; None for no limit.
        data: rows for training and evaluation.
        sources: folders of the weights.
        built: the model, if it did not depend on the data.
        chat: the template of its conversations; None where the model continues text.
    """

    tokenizer: Any
    config: Any
    limit: int | None
    data: Prepared
    sources: Sources
    built: Loaded | None = None
    chat: ChatTemplate | None = None

    @property
    def day(self) -> str | None:
        """The run's first day (UTC), an ISO date, where a chat template may write it."""
        return self.chat.day if self.chat else None


def gather(context: RunContext, store: Store, sources: Sources, began: RunIdentity | None = None) -> Ingredients:
    """Tokenizer, configuration and prepared data; all problems with them are reported at once.

    Raises:
        InvalidError: manifest or data are invalid.
    """
    settings, spec = context.settings, context.run.spec.model
    task, sample, trust = settings.task, settings.sample, bool(spec.trust_remote_code)
    day = (began and began.day) or asking.today()
    findings, say = Findings(), once(context.observer.note)

    def given_tokenizer() -> Any | None:
        if sources.tokenizer:
            found = load_tokenizer(sources.tokenizer.path, "spec.model.tokenizer.name", say=say)
        elif sources.model:
            found = load_tokenizer(sources.model.path, "spec.model.name", trust_remote_code=trust, say=say)
        else:
            return None
        return asking.settle(settings, ready_tokenizer(found, task), say)

    def configure(vocabulary: Any, labels: list[str] | None, tokens: int | None = None) -> Any:
        if sources.model:
            return load_config(sources.model.path, "spec.model.name", trust_remote_code=trust, labels=labels, say=say)
        has_labels = tasks.of(task).has_labels
        return fresh_config(spec.from_config or {}, vocabulary, labels, tokens, labelled=has_labels)

    # Conflicts between model, tokenizer and prompts
    tokenizer = findings.of(given_tokenizer)
    if tokenizer is None and not findings.problems:
        # A tokenizer that is not trained yet is replaced by one with its special tokens.
        stand_in = tokenizers.train(iter([["a b c"]]), 0, task)
        tried = _try_model(
            context, store, sources, findings, stand_in, lambda: configure(stand_in, None, trained_size(settings))
        )
    else:
        tried = _try_model(context, store, sources, findings, tokenizer, lambda: configure(tokenizer, None))
    limit = tried.limit
    chat = asking.chat_of(settings, tokenizer, day)
    findings.of(lambda: check_prompts(sample, tokenizer, task, limit, chat))

    # The data, which is only checked if there is something to fix anyway
    data = _data(context, store, tokenizer, tried, findings.problems, began, day)
    tokenizer = ready_tokenizer(data.tokenizer, task)
    config = configure(tokenizer, data.labels or None)
    chat = asking.chat_of(settings, tokenizer, day)
    check_prompts(sample, tokenizer, task, limit, chat)
    fit_to_data(context, store, config, tokenizer, data.figures)
    if isinstance(data.held_out, MaskedBlocks):
        require_masks(data.held_out)
    if tried.one_end and isinstance(data.collator, Padding):
        data = replace(data, collator=OneEnd(data.collator, tokenizer))
    # Vocabulary or labels may depend on the data.
    decided = sources.model is not None and not tasks.of(task).has_labels
    return Ingredients(tokenizer, config, limit, data, sources, tried.built if decided else None, chat)


@dataclass(frozen=True)
class _Tried:
    """A model before the data is prepared: as far as it could be built."""

    limit: int | None = None
    built: Loaded | None = None
    one_end: bool = False
    labels: list[str] = field(default_factory=list)
    packs: bool = True


def _try_model(
    context: RunContext,
    store: Store,
    sources: Sources,
    findings: Findings,
    tokenizer: Any,
    configure: Callable[[], Any],
) -> _Tried:
    """Build the model and rehearse with it; problems are added to the findings."""
    settings = context.settings
    config = findings.of(configure)
    if config is None:
        return _Tried()
    findings.of(lambda: require_head(settings.task, config))
    labels = []
    if sources.model is not None and tasks.of(settings.task).has_labels:
        labels = model_labels(config.id2label)
        if tokenizer is not None:
            take_padding(tokenizer, config)
    limit = position_limit(config, tokenizer)
    if findings.problems:
        return _Tried(limit)
    fit_before_data(context, store, config, tokenizer)
    tried: list[Loaded] = []

    def trial() -> dict[str, Any]:
        seen = Findings()
        built = seen.of(lambda: _build(context, sources, config, tokenizer))
        if built is None:
            return {"problems": seen.problems}
        tried.append(built)
        rehearsed = seen.of(lambda: rehearse(built.model, tokenizer, settings, _field(context, sources)))
        seen.of(lambda: require_adaptable(built, settings))
        return {"problems": seen.problems, "rehearsed": rehearsed and asdict(rehearsed)}

    found = from_first(context, "trial", trial) if first_loads(context) else trial()
    findings.problems += found["problems"]
    if found.get("rehearsed") is None:
        return _Tried(limit)
    rehearsed = Rehearsed(**found["rehearsed"])
    return _Tried(rehearsed.limit, tried[0] if tried else None, rehearsed.one_end, labels, rehearsed.packs)


def make_model(
    context: RunContext,
    ingredients: Ingredients,
    arithmetic: Arithmetic,
    adapter: Path | None = None,
    device: torch.device | None = None,
) -> Loaded:
    """The model on its device, with the adapter if it gets one; what is trained of it is in FP32.

    Args:
        context: context of the attempt.
        ingredients: with its sources.
        arithmetic: device and precision.
        adapter: folder of the adapter to put on it; None for that of the run that it resumes from, or a fresh one.
        device: where it is put; None for that of the arithmetic.

    Raises:
        AcceleratorMemoryError: it does not fit there.
        InvalidError: it cannot be built, or does not learn the task.
    """
    built = ingredients.built or build_again(context, ingredients)
    model = built.model
    if ingredients.sources.model is None and tasks.of(context.settings.task).causal and ingredients.limit is not None:
        # A pipeline generates 256 tokens by default, and a small model may not have as many positions.
        model.generation_config.max_length = ingredients.limit
    size = built.model.num_parameters()
    try:
        put_adapter_on(context, ingredients, built, arithmetic, adapter, device)
        model = model.to(device or arithmetic.device)
    except RuntimeError as error:
        if is_shortage(error):
            raise AcceleratorMemoryError(
                "the model's weights alone do not fit in the accelerator's memory. Choose a smaller model, or take a "
                "larger GPU."
            ) from error
        raise
    if (rows := pad_rows_of(ingredients)) is not None:
        pad_to(ingredients, left=pads_left(model, rows.pad_id, wanted=rows.left))
    return replace(built, model=model, size=size)


def put_adapter_on(
    context: RunContext,
    ingredients: Ingredients,
    built: Loaded,
    arithmetic: Arithmetic,
    adapter: Path | None = None,
    device: torch.device | None = None,
) -> None:
    """Put the adapter on a model, if it gets one; see :func:`make_model`."""
    if context.settings.training.adapter is not None and context.run.stage != Stage.PREPARE:
        resumed = ingredients.sources.resumed.adapter if ingredients.sources.resumed else None
        wear(context, built, _base(context, ingredients.sources), arithmetic, adapter or resumed, device)


def pad_rows_of(ingredients: Ingredients) -> PadRows | None:
    """What pads the rows; None where there is nothing to pad."""
    collator = ingredients.data.collator
    rows = collator.collate if isinstance(collator, OneEnd) else collator
    return rows if isinstance(rows, PadRows) else None


def pad_to(ingredients: Ingredients, *, left: bool) -> None:
    """Pad rows on this side, and let the tokenizer say so."""
    rows = pad_rows_of(ingredients)
    if rows is not None:
        rows.left = left
        ingredients.tokenizer.padding_side = "left" if left else "right"


def build_again(context: RunContext, ingredients: Ingredients, dtype: torch.dtype = torch.float32) -> Loaded:
    """Another copy of the model that the run started with, on the CPU."""
    return _build(context, ingredients.sources, copy.deepcopy(ingredients.config), ingredients.tokenizer, dtype)


def _base(context: RunContext, sources: Sources) -> Base:
    """The model as an adapter's configuration names it: as the manifest does, not by a folder on this disk."""
    theirs = context.run.resume_model_uri if sources.resumed and not sources.resumed.from_manifest else None
    return Base(theirs or context.run.spec.model.name or "", sources.revision)


def training_inputs(
    context: RunContext, start: Start, inputs: Ingredients, model: Any, attempt: TrainingAttempt
) -> TrainingInputs:
    """Everything that training needs, with the accelerations for this device."""
    settings, batch = context.settings, attempt.adjustment.batch
    acceleration = choose_acceleration(
        model,
        settings.task,
        start.arithmetic,
        block_size=settings.dataset.block_size,
        shared=inputs.data.row_tokens if inputs.data.shared else None,
        padded=PaddedRows.of(inputs.data, inputs.limit, batch.rows),
        tokens=batch.rows * inputs.data.row_tokens,
        steps=steps_of(settings, len(inputs.data.train), batch),
        # Layers in 4 bits call kernels that the compiler cannot see into.
        wanted=settings.training.compile if settings.training.quantization is None else Compile.OFF,
        own_loss=computes_own_loss(start.trainer_class),
        checkpointing=attempt.adjustment.checkpointing,
    )
    return TrainingInputs(
        settings=settings,
        model=model,
        tokenizer=inputs.tokenizer,
        train_rows=inputs.data.train,
        eval_rows=inputs.data.held_out,
        collate=acceleration.collate(inputs.data.collator, batch.rows),
        arithmetic=start.arithmetic,
        batch=batch,
        folder=context.folder,
        uploads=attempt.uploads,
        interrupt=context.interrupt,
        observer=context.observer,
        beat=attempt.beat,
        trainer_class=start.trainer_class,
        callbacks=start.callbacks,
        acceleration=acceleration,
        chat=inputs.chat,
        group=context.group,
        metrics=attempt.metrics,
    )


def _build(
    context: RunContext, sources: Sources, config: Any, tokenizer: Any, dtype: torch.dtype = torch.float32
) -> Loaded:
    built = build_model(
        context.settings.task,
        config,
        tokenizer,
        sources.model.path if sources.model else None,
        _field(context, sources),
        seed=context.settings.training.seed,
        trust_remote_code=bool(context.run.spec.model.trust_remote_code),
        dtype=dtype,
    )
    if context.settings.dataset.has_conversations:
        asking.settle_generation(built.model, tokenizer, context.settings.sample)
    return built


def _field(context: RunContext, sources: Sources) -> str:
    """Manifest field of the model, for errors."""
    if sources.resumed and not sources.resumed.from_manifest:
        return "spec.resumeFrom"
    return "spec.model.name" if sources.model else "spec.model.fromConfig"


def _known_fingerprint(context: RunContext, store: Store, began: RunIdentity | None) -> str | None:
    """Fingerprint of prepared data to use without reading its source; None if the source decides."""
    if context.run.stage == Stage.TRAIN:
        staged = staged_fingerprint(store)
        if staged is not None:
            return staged
    # A branch of the hub may have moved since the run began, which is no reason to end it. A changed file was changed
    # by somebody, and is read again, so that they are told that this run does not use it.
    if began is not None and context.run.spec.dataset.name is not None and same_software(began):
        return began.data
    return None


def staged_fingerprint(store: Store) -> str | None:
    """Fingerprint of the data that the prepare stage stored for the train stage; None if there is none."""
    return read_note(store, STAGED_DATA, lambda note: str(note["fingerprint"]))


def _data(
    context: RunContext,
    store: Store,
    tokenizer: Any | None,
    tried: _Tried,
    known_problems: list[str],
    began: RunIdentity | None,
    day: str,
) -> Prepared:
    shared = context.namespace_store()
    if not known_problems and (fingerprint := _known_fingerprint(context, store, began)):
        found = reopen(
            fingerprint,
            context.settings,
            tokenizer,
            store=shared,
            cache=context.cache,
            check=context.check,
            say=context.observer.note,
        )
        if found:
            return found
    return prepare(
        context.settings,
        tokenizer,
        store=shared,
        cache=context.cache,
        max_positions=tried.limit,
        model_labels=tried.labels,
        packs=tried.packs,
        day=day,
        known_problems=known_problems,
        hub_token=context.hub_token_file(),
        credentials=context.secret("dataset"),
        check=context.check,
        paused=context.watchdog.paused,
        told=context.observer.transfer,
        say=context.observer.note,
        admitted=context.run.source_patterns,
    )
