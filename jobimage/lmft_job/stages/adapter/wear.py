"""Puts the adapter of a manifest on the model, on its device."""

from pathlib import Path
from typing import Any

import torch

from lmft_api.spec import Quantization
from lmft_api.spec.resolved import Settings
from lmft_job import tasks
from lmft_job.adapters.attach import Base, attach, narrow_base
from lmft_job.adapters.quantize import quantize
from lmft_job.adapters.state import UnfitAdapterError, restore
from lmft_job.adapters.targets import Targets, find_targets
from lmft_job.attempt.context import RunContext
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic
from lmft_job.models.weights import Loaded


def require_adaptable(built: Loaded, settings: Settings) -> None:
    """Check, before data is prepared, that the model takes the adapter, if there is one.

    Raises:
        InvalidError: modules that it lacks, or tokens that nobody would train.
    """
    if settings.training.adapter is None:
        return
    if built.enlarged:
        template = settings.dataset.chat_template
        if template is not None and template.name is not None:
            whose = f"spec.dataset.chatTemplate: {template.name} adds tokens that the model has no"
            advice = "Choose a template that needs none, such as Zephyr,"
        else:
            whose = "spec.model.tokenizer: has more tokens than the model has"
            advice = "Use the model's own tokenizer,"
        raise InvalidError(
            [
                f"{whose} embeddings for; with an adapter these stay frozen, so the new ones would stay random. "
                f"{advice} or train without an adapter."
            ]
        )
    _targets(built, settings)


def wear(
    context: RunContext,
    built: Loaded,
    base: Base,
    arithmetic: Arithmetic,
    continued: Path | None = None,
    device: torch.device | None = None,
) -> None:
    """Freeze the model, narrow it where its device computes in fewer bits, and put an adapter on it.

    Args:
        context: context of the attempt.
        built: the model; changed in place.
        base: what its adapter's configuration names.
        arithmetic: device and precision.
        continued: folder of an adapter to begin with; None for a fresh one.
        device: where the model is put; None for that of the arithmetic.

    Raises:
        InvalidError: the weights of that adapter do not fit.
    """
    settings, model = context.settings, built.model
    if settings.training.adapter is None:
        raise ValueError("the manifest has no adapter")
    targets = _targets(built, settings)
    model.requires_grad_(False)
    dtype = base_dtype(arithmetic)
    if settings.training.quantization == Quantization.NF4:
        found = quantize(model, [*targets.heads, *([targets.output] if targets.output else [])], dtype)
        if found.others:
            context.observer.note(
                f"{found.others} of {found.layers + found.others} linear layers are not in 4 bits: NF4 takes inputs in "
                "blocks of 64"
            )
    narrow_base(model, dtype)
    model.to(device or arithmetic.device)
    attach(
        model,
        targets,
        settings.training.adapter,
        base,
        auto_class=tasks.of(settings.task).auto_class,
        seed=settings.training.seed,
    )
    if continued is not None:
        try:
            restore(model, continued)
        except UnfitAdapterError as error:
            raise InvalidError(
                [f"spec.resumeFrom: its adapter does not fit this model and spec.training.adapter ({error})"]
            ) from error


def base_dtype(arithmetic: Arithmetic) -> Any:
    """Type of the frozen weights: that of the products on a GPU, FP32 on a CPU."""
    return arithmetic.autocast if arithmetic.autocast and arithmetic.device.type == "cuda" else torch.float32


def _targets(built: Loaded, settings: Settings) -> Targets:
    wanted = settings.training.adapter
    if wanted is None:
        raise ValueError("the manifest has no adapter")
    return find_targets(built.model, tasks.of(settings.task), wanted, built.fresh)
