"""One process of each pod loads a model that may be divided; the others make the same without memory for its weights.

What only the weights tell, such as whether the embeddings are tied in the files, they hear from the first.
"""

import copy
import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from lmft_job.attempt.context import RunContext
from lmft_job.models.build import hollow_model
from lmft_job.models.config import parts_of
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import embedding_rows
from lmft_job.models.padding_row import is_held, mark_held
from lmft_job.models.weights import Loaded
from lmft_job.sharding.spread import described
from lmft_job.stages.inputs import Ingredients, make_model, pad_rows_of, pad_to, put_adapter_on
from lmft_job.stages.ranks.turns import first_loads, from_first

log = logging.getLogger(__name__)
_CPU, _META = torch.device("cpu"), torch.device("meta")
_GENERATION = "generation_config"


@dataclass(frozen=True)
class _Told:
    """What the first process tells the others of the model that it has made.

    Attributes:
        tensors: see :func:`described`.
        notes: see :class:`Loaded`; so are ``fresh``, ``dtype`` and ``size``.
        rows: rows of the embeddings, where they were enlarged; else 0.
        tied: whether the configuration, and its language model part, still tie the embeddings.
        held: whether the padding token's embedding is kept at zero.
        training: whether the model is in training mode.
        generation: its generation settings; None where it has none.
        left: whether rows of a classifier are padded on the left.
    """

    tensors: list[list[Any]]
    notes: list[str]
    fresh: list[str]
    dtype: str
    rows: int
    size: int
    tied: list[bool]
    held: bool
    training: bool
    generation: dict[str, Any] | None
    left: bool | None


def load_model(context: RunContext, inputs: Ingredients, arithmetic: Arithmetic) -> Loaded:
    """The model of a run, with its adapter if it gets one: on its device, or where it may be divided, on the CPU of its
    pod's first process, and without memory in the others.

    Raises:
        JobError: see :func:`make_model`.
    """
    if not first_loads(context):
        return make_model(context, inputs, arithmetic)
    made: list[Loaded] = []

    def make() -> dict[str, Any]:
        made.append(make_model(context, inputs, arithmetic, device=_CPU))
        return asdict(_told(made[0], inputs))

    told = _Told(**from_first(context, "model", make))
    return made[0] if made else _without_memory(context, inputs, arithmetic, told)


def whole(context: RunContext, inputs: Ingredients, arithmetic: Arithmetic) -> Any:
    """The whole model on its device, in every process."""
    return make_model(context, inputs, arithmetic).model


def _told(built: Loaded, inputs: Ingredients) -> _Told:
    model, rows = built.model, pad_rows_of(inputs)
    generation = getattr(model, _GENERATION, None)
    return _Told(
        tensors=described(model),
        notes=list(built.notes),
        fresh=list(built.fresh),
        dtype=str(built.dtype).removeprefix("torch."),
        rows=embedding_rows(model) if built.enlarged else 0,
        size=built.size,
        tied=[bool(getattr(part, "tie_word_embeddings", False)) for part in parts_of(model.config)],
        held=is_held(model),
        training=model.training,
        generation=None if generation is None else generation.to_dict(),
        left=None if rows is None else rows.left,
    )


def _without_memory(context: RunContext, inputs: Ingredients, arithmetic: Arithmetic, told: _Told) -> Loaded:
    """The same model on the meta device; with its weights where it would differ."""
    config = copy.deepcopy(inputs.config)
    for part, tied in zip(parts_of(config), told.tied, strict=True):
        if hasattr(part, "tie_word_embeddings"):
            part.tie_word_embeddings = tied
    trusted = bool(context.run.spec.model.trust_remote_code)
    model = hollow_model(
        context.settings.task, config, inputs.tokenizer, rows=told.rows, trust_remote_code=trusted
    ).train(told.training)
    if told.held:
        mark_held(model)
    if told.generation is not None:
        model.generation_config = GenerationConfig.from_dict(told.generation)
    dtype = getattr(torch, told.dtype)
    built = Loaded(model, tuple(told.notes), tuple(told.fresh), dtype, bool(told.rows), told.size)
    with _META:
        put_adapter_on(context, inputs, built, arithmetic, device=_META)
    if told.left is not None:
        pad_to(inputs, left=told.left)
    if described(model) == told.tensors:
        return built
    log.info("a model of type %s is loaded by every rank: it differs without its weights", config.model_type)
    return make_model(context, inputs, arithmetic, device=_CPU)
