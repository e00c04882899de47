"""What the report says of an adapter: rows, remarks, and how to load it. The same on the page and on the cards."""

from lmft_api.wire.report import AdapterFigures, Report
from lmft_job.report import formatting


def adapter_rows(report: Report) -> list[tuple[str, str]]:
    """Name and value; empty if all weights were trained."""
    told, settings = report.adapter, report.settings
    if told is None:
        return []
    kind = settings.get("training.adapter.type", "LoRA")
    words = [f"{kind} of rank {settings.get('training.adapter.rank')}, alpha {settings.get('training.adapter.alpha')}"]
    if settings.get("training.adapter.rank_stabilized"):
        words.append("rank-stabilized")
    words.append(f"on {', '.join(settings.get('training.adapter.target_modules', []))}")
    trained = report.model.trained_parameters
    return [
        ("Trained parameters", f"{formatting.count(trained)}, an adapter" if trained else ""),
        ("Adapter", ", ".join(words)),
        ("Base model while training", "in 4 bits (NF4)" if told.quantized else ""),
        ("Held-out loss by weights", "\n".join(f"{name}: {loss:.4f}" for name, loss in _losses(told))),
        ("Serving the adapter", "\n".join(told.serving)),
    ]


def _losses(told: AdapterFigures) -> list[tuple[str, float]]:
    on = "in 4 bits" if told.quantized else "as trained"
    losses = [
        (f"adapter on the base model {on}", told.adapter_loss),
        (f"adapter on the base model's own weights ({told.base_dtype})", told.base_loss),
        (f"merged ({told.base_dtype})", told.merged_loss),
    ]
    return [(name, loss) for name, loss in losses if loss is not None]


def adapter_remarks(report: Report) -> list[str]:
    """What a careful reader should know of the figures of an adapter."""
    told = report.adapter
    if told is None:
        return []
    said = []
    if told.quantized:
        listed = "; ".join(f"{name}: {loss:.4f}" for name, loss in _losses(told))
        what = "the merged weights" if told.merged else "the adapter on the base model's own weights"
        said.append(
            f"The adapter was trained on the base model in 4 bits. The figures after training are those of {what}, "
            f"which is what is published; those before training, and while it went on, are those of the base model in "
            f"4 bits. Held-out losses: {listed}."
        )
    elif told.merged and told.merged_loss is not None and told.adapter_loss is not None:
        said.append(
            f"The figures are those of the model with its adapter. The merged weights were measured again in "
            f"{told.base_dtype}: their held-out loss differs by {abs(told.merged_loss - told.adapter_loss):.1g} nats."
        )
    if not told.merged:
        said += told.serving
    return said
