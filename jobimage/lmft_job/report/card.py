"""The model card: ``README.md`` beside the weights, readable by the hub and by people without it."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from yaml import SafeDumper

from lmft_api.figures import EVAL_LOSS, known, of_task
from lmft_api.schema.patterns import HUB_ID_PATTERN
from lmft_api.text.shown import one_line, printable
from lmft_api.wire.report import Report
from lmft_job import tasks
from lmft_job.report import formatting
from lmft_job.report.snippet import adapter_usage, usage
from lmft_job.report.tables import data_rows, evaluation_rows, origin_rows, remarks, settings_rows

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
    base, data = report.model.base_model, report.settings.get("dataset.name")
    base = base if base and _is_hub_id(base) else None
    on_hub = data if isinstance(data, str) and _is_hub_id(data) else None
    task = tasks.of(report.task)
    results = [
        EvalResult(
            task_type=task.pipeline,
            dataset_type=on_hub or "custom",
            dataset_name=one_line(report.dataset.name or "held-out data"),
            dataset_split="held out",
            metric_type=kind.word.replace(" ", "_"),
            metric_name=kind.word[:1].upper() + kind.word[1:],
            metric_value=round(getattr(report.results, kind.name), 6),
        )
        for kind in known(report.results)
    ]
    data_of_card = ModelCardData(
        library_name="peft" if of_adapter else "transformers",
        pipeline_tag=task.pipeline,
        base_model=base,
        base_model_relation=None if base is None else "adapter" if of_adapter else "finetune",
        datasets=None if on_hub is None else [on_hub],
        tags=["lmfinetune", "generated_from_trainer"],
        metrics=[result.metric_type for result in results] or None,
        widget=[{"text": one_line(sample.prompt)} for sample in report.results.samples] or None,
        eval_results=results or None,
        model_name=one_line(report.name),
    )
    written: dict[str, Any] = data_of_card.to_dict()  # type: ignore[no-untyped-call]
    return written


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
    text = f"Measured on {formatting.held_out(report)}{off}:\n\n" + _table(("", "before training", "after"), rows)
    if len(report.evaluations) < 2:
        return text
    columns = [EVAL_LOSS, *(kind for kind in of_task(report.task) if kind != EVAL_LOSS)]
    header = ("step", "epoch", "training loss", *(kind.word for kind in columns))
    evaluations = [
        (
            formatting.count(row.step),
            f"{row.epoch:.4g}",
            formatting.figure(row.train_loss),
            *(formatting.evaluated(kind, row) for kind in columns),
        )
        for row in evaluation_rows(report)
    ]
    return f"{text}\nWhile training:\n\n{_table(header, evaluations)}"


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
    wanted = (
        "training.",
        "dataset.blockSize",
        "dataset.isolateDocuments",
        "dataset.maskProbability",
        "dataset.trainOn",
        "dataset.maxLength",
    )
    rows = [
        (f"`{row.name}`", _plain(row.value))
        for row in settings_rows(report)
        if row.name.startswith(wanted) and row.value != "not set"
    ]
    device = f"{formatting.quantity(report.training.steps, 'steps')} on {_plain(report.device)} in {report.precision}"
    if report.dataset.train_targets is not None:
        device += ", documents isolated"
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
