"""``report.html``: one self-contained page, without scripts and without requests."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic.alias_generators import to_camel

from lmft_api.settings import resolve
from lmft_api.spec import Builtin, Dataset, LMFineTuneSpec, Model, Task
from lmft_job.report import charts, words
from lmft_job.report.model import CurvePoint, Evaluation, Report
from lmft_job.report.usage import usage

SAMPLE_SHOWN = 900
"""Characters of an answer before the rest is folded."""
SMOOTH_FROM = 60
"""Number of logged losses from which a running mean is drawn over them."""
EVALUATION_ROWS = 60
"""Rows of the evaluations' table; more are thinned evenly."""


@dataclass(frozen=True)
class Answer:
    """A sample's text, split where the page folds it."""

    shown: str
    rest: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart in two sizes with its legend: (style, name) of each series."""

    title: str
    drawings: Markup
    legend: list[tuple[str, str]]
    remark: str = ""


@dataclass(frozen=True)
class Setting:
    """A row of the settings; default is None where the setting has none."""

    name: str
    value: str
    default: str | None
    changed: bool


def render_page(report: Report, curve: Sequence[CurvePoint]) -> bytes:
    """The page as UTF-8.

    Args:
        report: the figures.
        curve: logged training losses in the order of their steps, over all attempts; may be empty or huge.
    """
    environment = Environment(
        loader=PackageLoader("lmft_job.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Values that a person or a model wrote may hold characters that HTML forbids.
        finalize=lambda value: value if isinstance(value, Markup) else words.clean(str(value)),
    )
    style = resources.files("lmft_job.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    settings = settings_rows(report)
    page = environment.get_template("report.html.j2").render(
        report=report,
        words=words,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'",
        task=words.TASK_NAMES[report.task],
        outcome=words.outcome(report),
        tiles=_tiles(report),
        charts=_charts(report, curve),
        evaluations=_evaluation_rows(report),
        samples=[(sample.prompt, _answer(sample.before), _answer(sample.after)) for sample in report.results.samples],
        figures=_figure_rows(report),
        data=_data_rows(report),
        changed=[row for row in settings if row.changed],
        settings=settings,
        training=_training_rows(report),
        timings=[
            (name[:1].upper() + name[1:].replace("_", " "), words.duration(seconds))
            for name, seconds in report.timings.items()
        ],
        provenance=_provenance_rows(report),
        remarks=remarks(report),
        usage=usage(report),
    )
    return page.encode("utf-8", errors="replace")


def settings_rows(report: Report) -> list[Setting]:
    """All settings by the manifest's names, with the default of each and whether the run departed from it."""
    builtin = report.settings.get("dataset.builtin")
    dataset = Dataset(builtin=Builtin(builtin)) if builtin in set(Builtin) else Dataset(name="none")
    plain = LMFineTuneSpec(task=report.task, model=Model(name="none"), dataset=dataset)
    defaults = {
        name: value
        for name, value in resolve(plain).flat().items()
        if name not in ("model.name", "dataset.name", "dataset.builtin")
    }
    rows = []
    for name in dict.fromkeys([*report.settings, *defaults]):
        value, default = _plain(report.settings.get(name)), _plain(defaults.get(name))
        if name != "model.from_config" and isinstance(value, dict):
            value = {to_camel(key): entry for key, entry in value.items()}
        shown = "not set" if name not in report.settings else _show(value)
        changed = name in report.settings and value != default and name != "task"
        label = ".".join(to_camel(part) for part in name.split("."))
        rows.append(Setting(label, shown, _show(default) if name in defaults else None, changed))
    return rows


def remarks(report: Report) -> list[str]:
    """What a careful reader has to know about the figures; the model card says the same."""
    said = []
    if report.results.perplexity is not None:
        said.append(
            "Perplexity is exp of the mean loss over the held-out target tokens, each weighing the same. It can be "
            "compared only between models with the same tokenizer, on the same blocks."
        )
    if report.task == Task.CAUSAL_LM:
        said.append(
            "Texts are packed: joined and cut into blocks, so attention can reach from one text into the one before it."
        )
    if report.task == Task.MASKED_LM:
        said.append("The held-out blocks were masked once, with a fixed seed, so every evaluation sees the same masks.")
    if report.model.base_model is None:
        said.append(
            "The model was trained from scratch: before training it guesses nearly evenly among all tokens, so a large "
            "improvement is to be expected and says little by itself."
        )
    said.append("The held-out data comes from the same source as the training data; other texts may fare worse.")
    if report.task != Task.SEQUENCE_CLASSIFICATION and report.results.samples:
        said.append("The samples are single draws, with the same seed before and after.")
    return said


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """The few figures at the top: name, figure, and what it was before."""
    results, tiles = report.results, []

    def was(before: float | None, show: Any) -> str:
        return "" if before is None else f"was {show(before)}"

    if results.accuracy is not None:
        tiles.append(("Accuracy", words.percent(results.accuracy), was(results.baseline_accuracy, words.percent)))
    if results.perplexity is not None:
        tiles.append(("Perplexity", words.figure(results.perplexity), was(results.baseline_perplexity, words.figure)))
    if results.eval_loss is not None:
        tiles.append(("Held-out loss", words.figure(results.eval_loss), was(results.baseline_eval_loss, words.figure)))
    epochs = report.training.epochs
    tiles.append(
        ("Steps", words.count(report.training.steps), f"{epochs:.3g} epochs" if epochs and epochs != 1 else "")
    )
    if report.training.tokens_per_second:
        tiles.append(("Tokens a second", words.count(report.training.tokens_per_second), report.device))
    return tiles


def _charts(report: Report, curve: Sequence[CurvePoint]) -> list[Chart]:
    training = [(float(point.step), point.loss) for point in curve]
    evaluated = _evaluation_points(report, report.results.baseline_eval_loss, lambda row: row.eval_loss)
    marks = _marks(report)
    drawn = []
    series = [charts.Series("training loss", training, "training")] if training else []
    if len(training) >= SMOOTH_FROM:
        window = max(5, len(training) // 30)
        series = [
            charts.Series("training loss, each log", training, "training raw"),
            charts.Series(f"training loss, mean of {window} logs", charts.running_mean(training, window), "training"),
        ]
    if evaluated:
        series.append(charts.Series("held-out loss", evaluated, "evaluation", dots=True))
    missing = sum(not math.isfinite(loss) for _, loss in training)
    remark = (
        f"{words.quantity(missing, 'values')} of the training loss not finite; the curve has gaps there."
        if missing
        else ""
    )
    if _drawable(series):
        described = [
            _describe("Training loss", training),
            _describe("Held-out loss", evaluated),
            _describe_marks(marks),
        ]
        drawn.append(_chart("loss", "Loss while training", described, series, marks, remark))
    accuracies = _evaluation_points(report, report.results.baseline_accuracy, lambda row: row.accuracy)
    series = [charts.Series("held-out accuracy", accuracies, "evaluation", dots=True)]
    if accuracies and _drawable(series):
        described = [_describe("Held-out accuracy", accuracies, words.percent)]
        drawn.append(_chart("accuracy", "Accuracy while training", described, series, marks, "", percent=True))
    return drawn


def _chart(
    identifier: str,
    title: str,
    described: list[str],
    series: list[charts.Series],
    marks: list[charts.Mark],
    remark: str,
    *,
    percent: bool = False,
) -> Chart:
    description = " ".join(part for part in described if part)
    drawings = [
        charts.line_chart(
            identifier,
            size,
            title,
            description,
            series,
            marks,
            y_label="accuracy" if percent else "loss",
            percent=percent,
        )
        for size in (charts.WIDE, charts.NARROW)
    ]
    # The drawings are escaped by the XML writer; only control characters are left to take out.
    return Chart(title, Markup(words.clean("\n".join(drawings))), [(one.style, one.name) for one in series], remark)


def _drawable(series: Sequence[charts.Series]) -> bool:
    return any(math.isfinite(y) for one in series for _, y in one.points)


def _evaluation_points(report: Report, baseline: float | None, value: Any) -> list[charts.Point]:
    points = [(0.0, baseline)] if baseline is not None else []
    points += [(float(row.step), value(row)) for row in report.evaluations if value(row) is not None]
    return points


def _marks(report: Report) -> list[charts.Mark]:
    marks = []
    epochs, steps = report.training.epochs or 0.0, report.training.steps
    if epochs > 0 and steps > 0:
        whole = math.floor(epochs + 1e-6)
        stride = max(1, math.ceil(whole / 20))
        marks = [
            charts.Mark(number * steps / epochs, f"epoch {number}", "epoch")
            for number in range(stride, whole + 1, stride)
        ]
    resumes = [(resume.step, resume.lost_steps) for resume in report.training.resumes]
    if not resumes and report.training.resumed_from_step:
        resumes = [(report.training.resumed_from_step, report.training.lost_steps)]
    for step, lost in resumes:
        marks.append(charts.Mark(float(step), "resumed" + (f", {lost} repeated" if lost else ""), "resume"))
    return marks


def _describe(what: str, points: Sequence[charts.Point], show: Any = words.figure) -> str:
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    (first_x, first_y), (last_x, last_y) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{what}: {show(first_y)} at step {first_x:,.0f}."
    low_x, low_y = min(finite, key=lambda point: point[1])
    lowest = f", lowest {show(low_y)} at step {low_x:,.0f}" if low_x not in (first_x, last_x) else ""
    return f"{what}: from {show(first_y)} at step {first_x:,.0f} to {show(last_y)} at step {last_x:,.0f}{lowest}."


def _describe_marks(marks: Sequence[charts.Mark]) -> str:
    resumes = [f"{mark.label} at step {mark.x:,.0f}" for mark in marks if mark.style == "resume"]
    return f"The run {'; '.join(resumes)}." if resumes else ""


def _evaluation_rows(report: Report) -> list[Evaluation]:
    rows = report.evaluations
    if len(rows) <= EVALUATION_ROWS:
        return rows
    return [rows[round(number * (len(rows) - 1) / (EVALUATION_ROWS - 1))] for number in range(EVALUATION_ROWS)]


def _answer(text: str | None) -> Answer | None:
    if text is None:
        return None
    text = text.strip()
    if len(text) <= SAMPLE_SHOWN * 1.2:
        return Answer(text)
    # Cut between words where there is one near.
    cut = text.rfind(" ", SAMPLE_SHOWN - 80, SAMPLE_SHOWN)
    cut = cut if cut > 0 else SAMPLE_SHOWN
    return Answer(text[:cut], text[cut:])


def _figure_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Name, before, after, change."""
    results, rows = report.results, []
    if results.accuracy is not None:
        change = "–"
        if results.baseline_accuracy is not None:
            change = f"{(results.accuracy - results.baseline_accuracy) * 100:+.1f} points"
        rows.append(("Accuracy", words.percent(results.baseline_accuracy), words.percent(results.accuracy), change))
    for name, before, after, relative in (
        ("Perplexity", results.baseline_perplexity, results.perplexity, True),
        ("Held-out loss (nats per target)", results.baseline_eval_loss, results.eval_loss, False),
        ("Held-out loss as a plain Trainer reports it", None, results.trainer_eval_loss, False),
    ):
        if after is not None:
            rows.append((name, words.figure(before), words.figure(after), _change(before, after, relative)))
    return [(name, before, after, change.replace("-", "−")) for name, before, after, change in rows]


def _change(before: float | None, after: float, relative: bool) -> str:
    if before is None or not (math.isfinite(before) and math.isfinite(after)):
        return "–"
    if relative:
        return f"{(after - before) / before * 100:+.1f} %" if before else "–"
    return ("+" if after > before else "") + words.figure(after - before)


def _data_rows(report: Report) -> list[tuple[str, str, str]]:
    """Name, training, held out."""
    data = report.dataset

    def cell(number: int | None) -> str:
        return "–" if number is None else words.count(number)

    rows = [("Rows", cell(data.train_rows), cell(data.eval_rows))]
    if data.train_blocks is not None:
        rows.append(("Blocks", cell(data.train_blocks), cell(data.eval_blocks)))
    rows.append(("Tokens", cell(data.train_tokens), cell(data.eval_tokens)))
    return rows


def _training_rows(report: Report) -> list[tuple[str, str]]:
    training, model = report.training, report.model
    steps = words.count(training.steps)
    if training.total_steps and training.total_steps != training.steps:
        steps += f" of {words.count(training.total_steps)} (stopped early)"
    rows = [
        ("Model", " · ".join(part for part in (model.architecture, model.detail) if part)),
        ("Parameters", words.count(model.parameters) if model.parameters else ""),
        ("Device", report.device),
        (
            "Precision",
            f"{report.precision} in training, {report.evaluation_dtype} in evaluation, {report.saved_dtype} saved",
        ),
        ("Steps", steps),
        ("Epochs", f"{training.epochs:.4g}" if training.epochs is not None else ""),
        ("Tokens seen", words.count(training.tokens) if training.tokens else ""),
        ("Resumed from step", words.count(training.resumed_from_step) if training.resumed_from_step else ""),
        ("Steps repeated", words.count(training.lost_steps) if training.lost_steps is not None else ""),
        ("Adjusted", "\n".join(training.adjustments)),
    ]
    return [(name, value) for name, value in rows if value]


def _provenance_rows(report: Report) -> list[tuple[str, str]]:
    source = report.provenance
    rows = [
        ("Run", f"{report.namespace}/{report.name}, attempt {report.attempt}"),
        ("Finished", report.finished),
        ("Base model", report.model.base_model or "none: trained from scratch"),
        ("Model revision", source.model_revision),
        ("Resumed from", source.resumed_from),
        ("Data set", report.dataset.name),
        ("Data set revision", source.dataset_revision),
        ("Fingerprint of the prepared data", source.dataset_fingerprint or report.dataset.fingerprint),
        ("Spec, SHA-256", source.spec_hash),
        ("Seed", str(source.seed) if source.seed is not None else None),
        ("Image", source.image),
        ("Commit of LMFineTune", source.git),
        ("Model", report.results.model_uri),
        ("Report", report.results.report_uri),
        ("Versions", ", ".join(f"{name} {version}" for name, version in source.versions.items())),
    ]
    return [(name, value) for name, value in rows if value]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}".replace("e-0", "e-").replace("e+0", "e+")
    if isinstance(value, list):
        return "\n".join(_show(entry) for entry in value)
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_inline(entry)}" for key, entry in value.items())
    return _inline(value)


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
