"""The model card: ``README.md`` beside the weights, readable by the hub and by people without it."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from yaml import SafeDumper

from lmft_api.figures import known
from lmft_api.schema.patterns import HUB_ID_PATTERN
from lmft_api.text.shown import one_line, printable
from lmft_api.wire.report import Report
from lmft_job import tasks
from lmft_job.report import formatting
from lmft_job.report.snippet import adapter_usage, usage
from lmft_job.report.tables import data_rows, origin_rows, remarks, settings_rows

ANSWER_LENGTH = 1_500
"""Characters of an answer on the card; the report has the whole text."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#|~$!&])")
_LINE_START = re.compile(r"^([-+=]|\d+[.)](?=\s))", re.MULTILINE)


def render_card(report: Report, *, of_adapter: bool = False) -> str:
    """The card as Markdown with YAML front matter; text from outside is escaped or fenced, so it stays text.

    Args:
        report: of the run.
        of_adapter: the card of the adapter's folder, rather than the model's.
    """
    front = metadata(report, of_adapter=of_adapter)
    parts = [
        f"---\n{yaml.dump(front, Dumper=SafeDumper, sort_keys=False, allow_unicode=True)}---\n",
        f"# {_plain(report.name)}\n",
        _introduction(report),
        "## Figures\n",
        _figures(report),
        _samples(report),
        "## How to use\n",
        _usage(report, of_adapter=of_adapter),
        "## Training data\n",
        _data(report),
        "## Training\n",
        _training(report),
        "## Limitations\n",
        "\n".join(f"- {remark}" for remark in _limitations(report)) + "\n",
        "## Provenance\n",
        _provenance(report),
    ]
    return "\n".join(part for part in parts if part)


def metadata(report: Report, *, of_adapter: bool = False) -> dict[str, Any]:
    """The front matter; unknown values (above all the licence) are left out rather than guessed."""
    library = "peft" if of_adapter else "transformers"
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": tasks.of(report.task).pipeline}
    if report.model.base_model and _is_hub_id(report.model.base_model):
        front["base_model"] = report.model.base_model
        front["base_model_relation"] = "adapter" if of_adapter else "finetune"
    data_name = report.settings.get("dataset.name")
    on_hub = isinstance(data_name, str) and _is_hub_id(data_name)
    if on_hub:
        front["datasets"] = [data_name]
    front["tags"] = ["lmfinetune", "generated_from_trainer"]
    metrics = [
        {
            "type": kind.word.replace(" ", "_"),
            "name": kind.word[:1].upper() + kind.word[1:],
            "value": round(getattr(report.results, kind.name), 6),
        }
        for kind in known(report.results)
    ]
    if not metrics:
        return front
    front["metrics"] = [metric["type"] for metric in metrics]
    shown_name = one_line(report.dataset.name or "held-out data")
    front["model-index"] = [
        {
            "name": one_line(report.name),
            "results": [
                {
                    "task": {"type": tasks.of(report.task).pipeline},
                    "dataset": {"name": shown_name, "type": data_name if on_hub else "custom", "split": "held out"},
                    "metrics": metrics,
                }
            ],
        }
    ]
    return front


def _introduction(report: Report) -> str:
    task = tasks.of(report.task).title
    if report.model.base_model:
        origin = f"This is {_plain(report.model.base_model)}, fine-tuned for {task}"
    else:
        origin = f"This is a {_plain(report.model.name)} model, trained for {task} from scratch"
    data = f" on {_plain(report.dataset.name)}" if report.dataset.name else ""
    said = [f"{origin}{data}.", _plain(formatting.outcome(report))]
    said += [f"**{_plain(warning)}**" for warning in report.warnings]
    return "\n\n".join(said) + "\n"


def _figures(report: Report) -> str:
    results = report.results
    rows = [(kind.title, before, after) for kind, before, after in formatting.before_and_after(results) if after != "–"]
    if not rows:
        return "The run was not evaluated.\n"
    off = ", ± the standard error over them" if results.eval_loss_standard_error is not None else ""
    return f"Measured on {formatting.held_out(report)}{off}:\n\n" + _table(("", "before training", "after"), rows)


def _samples(report: Report) -> str:
    if not report.results.samples:
        return ""
    parts = ["## Samples\n"]
    for sample in report.results.samples:
        parts.append(f"Prompt:\n\n{_fenced(sample.prompt)}")
        for label, answer in (("Before", sample.before), ("After", sample.after)):
            if answer is not None:
                parts.append(f"{label}:\n\n{_fenced(answer)}")
    return "\n".join(parts)


def _usage(report: Report, *, of_adapter: bool = False) -> str:
    # The card travels with the model, so the example names the folder that the card is in, not where it was made.
    here = "path/to/this/folder"
    example = adapter_usage(report, here) if of_adapter else usage(report, here)
    first = f"{_fenced(example.copy, 'sh')}\n" if example.copy else ""
    return f"{first}{_fenced(example.code, 'python')}"


def _data(report: Report) -> str:
    data = report.dataset
    text = _table(("", "training", "held out"), data_rows(report))
    if data.dropped_rows and data.conversations is None:
        text += f"\n{formatting.quantity(data.dropped_rows, 'rows')} without content left out.\n"
    if data.labels:
        text += f"\nLabels: {', '.join(_plain(label) for label in data.labels)}.\n"
    return text


def _training(report: Report) -> str:
    wanted = ("training.", "dataset.blockSize", "dataset.maskProbability", "dataset.trainOn", "dataset.maxLength")
    rows = [
        (f"`{row.name}`", _plain(row.value))
        for row in settings_rows(report)
        if row.name.startswith(wanted) and row.value != "not set"
    ]
    device = f"{formatting.quantity(report.training.steps, 'steps')} on {_plain(report.device)} in {report.precision}"
    saved = f"weights saved as {report.saved_dtype}, evaluated in {report.evaluation_dtype}"
    return f"{device}; {saved}.\n\n" + _table(("setting", "value"), rows)


def _limitations(report: Report) -> list[str]:
    said = remarks(report)
    if report.model.base_model:
        said.append("The base model's limitations, biases and licence apply to this model too.")
    said.append("It was evaluated by the figures above only: not for truthfulness, not for safety, not on other tasks.")
    return [*said, *tasks.of(report.task).limitations]


def _provenance(report: Report) -> str:
    return _table(("", ""), [(_plain(name), _plain(value)) for name, value in origin_rows(report)])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Text from outside on one line, so that Markdown and embedded HTML treat it as text."""
    return _LINE_START.sub(r"\\\1", _SPECIAL.sub(r"\\\1", one_line(text)))


def _fenced(text: str, language: str = "text") -> str:
    """A code block that its content cannot close."""
    shown = printable(text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(shown) > ANSWER_LENGTH:
        shown = shown[: ANSWER_LENGTH - 1].rstrip() + "…"
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown.strip()}\n{fence}\n"


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(HUB_ID_PATTERN, name) is not None
