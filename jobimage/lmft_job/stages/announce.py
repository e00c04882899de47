"""Reports data and model before training begins."""

from typing import Any

from lmft_api.wire.report import ModelSummary
from lmft_job.adapters.attach import has_adapter
from lmft_job.adapters.state import size_of
from lmft_job.attempt.context import RunContext
from lmft_job.models.config import text_part
from lmft_job.models.device import Arithmetic, device_name, precision_name
from lmft_job.models.weights import Loaded
from lmft_job.observers.events import DataPrepared, Headline
from lmft_job.report.formatting import quantity, short_count
from lmft_job.report.remarks import data_remarks
from lmft_job.stages.inputs import Ingredients


def summarise(config: Any, built: Loaded, name: str | None) -> ModelSummary:
    """The model's part of the report and the console output."""
    layers = getattr(text_part(config), "num_hidden_layers", None)
    return ModelSummary(
        name=name or f"{config.model_type} (from config)",
        base_model=name,
        architecture=type(built.model).__name__,
        parameters=built.size,
        trained_parameters=size_of(built.model) if has_adapter(built.model) else None,
        detail=quantity(layers, "layers") if isinstance(layers, int) else None,
    )


def announce(context: RunContext, inputs: Ingredients, built: Loaded, arithmetic: Arithmetic) -> ModelSummary:
    """Report model and data to the observers; returns the model's part of the report."""
    summary = summarise(inputs.config, built, context.run.spec.model.name)
    announce_model(context, summary, arithmetic)
    announce_data(context, inputs)
    for note in built.notes:
        context.observer.note(note)
    return summary


def announce_data(context: RunContext, ingredients: Ingredients) -> None:
    """Report the data."""
    data = ingredients.data
    seconds = context.timings.get("data", 0.0)
    size = context.settings.dataset.block_size
    context.observer.data(DataPrepared(data.figures, size, seconds, reused=data.reused, noun=data.noun))
    for remark in data_remarks(data.figures):
        context.observer.note(remark)


def announce_model(context: RunContext, summary: ModelSummary, arithmetic: Arithmetic) -> None:
    """Report the model and its device."""
    size = f"{short_count(summary.parameters)} parameters" if summary.parameters else ""
    parts = [part for part in (summary.detail, size) if part]
    if summary.base_model is None:
        name = f"{summary.name.removesuffix(' (from config)')} ({', '.join(parts)}, from config)"
    else:
        name = f"{summary.name} ({', '.join(parts)})"
    device, precision = device_name(arithmetic), precision_name(arithmetic)
    context.observer.headline(Headline(context.run.name, context.settings.task, name, device, precision))
