"""Rows of the report's tables: from figures to text, the same for the page and the model card."""

import json
import math
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from lmft_api.figures import EVAL_LOSS, Figure, Scale, known, of_task
from lmft_api.spec import Adapter, Builtin, Dataset, LMFineTuneSpec, Model, Training, Weights
from lmft_api.spec.resolved import resolve
from lmft_api.text.wording import size
from lmft_api.wire.report import EvaluationRow, Report
from lmft_job import tasks
from lmft_job.report import formatting
from lmft_job.report.adapters import adapter_remarks, adapter_rows
from lmft_job.report.remarks import data_remarks

EVALUATION_ROWS = 60
"""Maximum number of rows of the evaluations' table; more are thinned evenly."""


@dataclass(frozen=True)
class Setting:
    """A row of the settings; default is None if the setting has none."""

    name: str
    value: str
    default: str | None
    changed: bool


def settings_rows(report: Report) -> list[Setting]:
    """All settings by their manifest names, with the default of each and whether the run's value differs from it."""
    builtin = report.settings.get("dataset.builtin")
    dataset = Dataset(builtin=Builtin(builtin)) if builtin in set(Builtin) else Dataset(name="none")
    adapted = Training(adapter=Adapter()) if "training.adapter.type" in report.settings else None
    if "dataset.train_on" in report.settings:
        dataset = Dataset(name="none", messages_field="messages")
    plain = LMFineTuneSpec(task=report.task, model=Model(name="none"), dataset=dataset, training=adapted)
    defaults = {
        name: value
        for name, value in resolve(plain).flat().items()
        if name not in ("model.name", "dataset.name", "dataset.builtin", "dataset.messages_field")
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
    """What a careful reader should know about the figures; the model card repeats it."""
    task, said = tasks.of(report.task), [*report.warnings, *_of_change(report), *data_remarks(report.dataset)]
    said += adapter_remarks(report)
    said += [kind.remark for kind in known(report.results) if kind.remark]
    said += task.remarks if report.dataset.conversations is None and report.dataset.train_targets is None else ()
    if report.model.base_model is None:
        said.append(
            "The model was trained from scratch: before training it guesses nearly evenly among all tokens, so a large "
            "improvement is to be expected and says little by itself."
        )
    if report.settings.get("training.trainer_class"):
        first, *others = of_task(report.task)
        figures = ", ".join([first.title, *(kind.word for kind in others if kind != EVAL_LOSS)])
        said.append(
            f"{_trainer(report)} decides what is trained on: the training loss is the one that it computes, and its "
            f"loss on the held-out data stands beside ours. {figures} and held-out loss are the model's own, before "
            "and after, so that runs with and without it can be compared."
        )
    said.append(
        "The held-out data comes from the same source as the training data; figures on other texts may be worse."
    )
    if task.drawn and report.results.samples:
        said.append("The samples are single draws, with the same seed before and after.")
    return said


def _of_change(report: Report) -> list[str]:
    """Whether the change is significant, and what ± means."""
    results, said = report.results, []
    found, on = formatting.verdict(results), formatting.held_out(report)
    if found == formatting.Verdict.WORSE:
        said.append(f"The model is worse on {on} than it was before training: {formatting.VERDICTS[found]}.")
    if found == formatting.Verdict.CHANCE:
        said.append(
            "The change since before training is less than twice its standard error: another choice of the held-out "
            "data might not show it. Hold out more data to see smaller changes."
        )
    if overfitted := _of_overfitting(report):
        said.append(overfitted)
    if results.eval_loss_standard_error is not None:
        units = "blocks" if report.dataset.eval_blocks is not None else "rows"
        units = units if report.dataset.conversations is None else "conversations"
        said.append(
            f"± is the standard error over {on}: how far a figure may be off because these {units} and not others were "
            f"held out. That of a change compares the same {units} before and after. Other seeds differ by more."
        )
    return said


def _of_overfitting(report: Report) -> str:
    """Whether the held-out loss rose again, by more than the standard error of the last one; empty if not."""
    rows = [row for row in report.evaluations if math.isfinite(row.eval_loss)]
    if len(rows) < 2:
        return ""
    best, last = min(rows, key=lambda row: row.eval_loss), rows[-1]
    if last.eval_loss - best.eval_loss <= (last.eval_loss_standard_error or 0.0):
        return ""
    rose = (
        f"The held-out loss was lowest at step {formatting.count(best.step)} ({formatting.figure(best.eval_loss)}) and "
        f"rose to {formatting.figure(last.eval_loss)} by step {formatting.count(last.step)}: from there on the model "
        "learned its training data by heart. "
    )
    kept = str(report.settings.get("output.weights"))
    if kept == Weights.BEST:
        return rose + "The weights of the lowest loss are the ones that were published."
    return (
        rose + "Train for fewer epochs, or set output.weights to Best, which publishes the weights of the lowest loss."
    )


def tiles_of(report: Report) -> list[tuple[str, str, str]]:
    """The main figures at the top: name, value, and value before training."""
    results, tiles = report.results, []

    def comparison(before: str, error: str) -> str:
        parts = ["" if error == "–" else f"± {error}", "" if before == "–" else f"was {before}"]
        return ", ".join(part for part in parts if part)

    for kind in known(results):
        change = formatting.Change.of(kind, results)
        share = kind.scale == Scale.SHARE
        error = formatting.percent(change.error) if share else formatting.figure(change.error, 2)
        before = formatting.shown(kind, change.before)
        tiles.append((kind.title, formatting.shown(kind, change.after), comparison(before, error)))
    epochs = report.training.epochs
    tiles.append(
        ("Steps", formatting.count(report.training.steps), f"{epochs:.3g} epochs" if epochs and epochs != 1 else "")
    )
    if report.training.tokens_per_second:
        tiles.append(("Tokens per second", formatting.count(report.training.tokens_per_second), report.device))
    return tiles


def evaluation_rows(report: Report) -> list[EvaluationRow]:
    """The evaluations, thinned evenly if there are many; first and last stay."""
    rows = report.evaluations
    if len(rows) <= EVALUATION_ROWS:
        return rows
    return [rows[round(number * (len(rows) - 1) / (EVALUATION_ROWS - 1))] for number in range(EVALUATION_ROWS)]


def figure_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Name, before, after, change."""
    results, rows = report.results, []
    for kind in known(results):
        change = formatting.Change.of(kind, results)
        name = f"{kind.title} ({kind.unit})" if kind.unit else kind.title
        first = formatting.shown_within(kind, change.before, change.error_before)
        last = formatting.shown_within(kind, change.after, change.error)
        rows.append((name, first, last, _change(kind, change)))
    if results.trainer_eval_loss is not None:
        name = f"Held-out loss as {_trainer(report)} reports it"
        rows.append((name, "–", formatting.figure(results.trainer_eval_loss), "–"))
    return [(name, before, after, change.replace("-", "−")) for name, before, after, change in rows]


def _trainer(report: Report) -> str:
    """What computes Trainer's ``eval_loss``, for people: the user's class, or a plain Trainer."""
    given = report.settings.get("training.trainer_class")
    return str(given).rpartition(".")[2] if given else "a plain Trainer"


def _change(kind: Figure, change: formatting.Change) -> str:
    """The change with its standard error, if known; a dash if there is nothing to compare."""
    before, after, error = change.before, change.after, change.error_of_change
    if before is None or after is None:
        return "–"
    if kind.scale == Scale.SHARE:
        within = "" if error is None else f" ± {error * 100:.1f}"
        return f"{(after - before) * 100:+.1f}{within} points"
    if not (math.isfinite(before) and math.isfinite(after)):
        return "–"
    if kind.scale == Scale.RATIO:
        return _relative((after - before) / before * 100) if before else "–"
    within = "" if error is None else f" ± {formatting.figure(error, 2)}"
    return ("+" if after > before else "") + formatting.figure(after - before) + within


def _relative(percent: float) -> str:
    # An untrained model may have a perplexity of 130 digits, and so would its change.
    if not math.isfinite(percent):
        return "–"
    return f"{percent:+.1f} %" if abs(percent) < 1e6 else f"{percent:+.1e} %"


def data_rows(report: Report) -> list[tuple[str, str, str]]:
    """Name, training, held out."""
    data = report.dataset

    def cell(number: int | None) -> str:
        return "–" if number is None else formatting.count(number)

    rows = [("Rows", cell(data.train_rows), cell(data.eval_rows))]
    if data.train_blocks is not None:
        rows.append(("Blocks", cell(data.train_blocks), cell(data.eval_blocks)))
    if data.train_targets is not None:
        rows.append(("Predicted tokens", cell(data.train_targets), cell(data.eval_targets)))
    chats = data.conversations
    if chats is not None and chats.packs is not None:
        rows.append(("Packs", cell(chats.packs), "–"))
    rows.append(("Tokens", cell(data.train_tokens), cell(data.eval_tokens)))
    if chats is not None:
        one = _with_share(chats.train_trained_tokens, data.train_tokens)
        other = _with_share(chats.eval_trained_tokens, data.eval_tokens)
        rows.append(("Trained tokens", one, other))
    if data.train_cut_rows or data.eval_cut_rows:
        rows.append(
            (
                f"Texts cut at {formatting.count(data.longest_input or 0)} tokens",
                cell(data.train_cut_rows),
                cell(data.eval_cut_rows),
            )
        )
    return rows


def _with_share(trained: int, tokens: int | None) -> str:
    return f"{formatting.count(trained)} ({formatting.percent(trained / max(1, tokens or 0))})"


def training_rows(report: Report) -> list[tuple[str, str]]:
    """Training figures: name and value, without unknown ones."""
    training, model = report.training, report.model
    steps = formatting.count(training.steps)
    if training.total_steps and training.total_steps != training.steps:
        steps += f" of {formatting.count(training.total_steps)} (stopped early)"
    rows = [
        ("Model", " · ".join(part for part in (model.architecture, model.detail) if part)),
        ("Parameters", formatting.count(model.parameters) if model.parameters else ""),
        *adapter_rows(report),
        (
            "Trained tokenizer",
            formatting.quantity(report.dataset.vocabulary, "tokens") if report.dataset.vocabulary else "",
        ),
        ("Device", report.device),
        (
            "Precision",
            f"{report.precision} in training, {report.evaluation_dtype} in evaluation, {report.saved_dtype} saved",
        ),
        ("Attention", "documents isolated" if report.dataset.train_targets is not None else ""),
        ("Computed with", ", ".join(report.acceleration)),
        ("Steps", steps),
        ("Epochs", f"{training.epochs:.4g}" if training.epochs is not None else ""),
        ("Tokens seen", formatting.count(training.tokens) if training.tokens else ""),
        ("Waited for checkpoints", formatting.duration(waited) if (waited := training.checkpoint_seconds) else ""),
        ("Resumed from step", formatting.count(training.resumed_from_step) if training.resumed_from_step else ""),
        ("Steps repeated", formatting.count(training.lost_steps) if training.lost_steps is not None else ""),
        ("Memory at most", " · ".join(f"{size(peak)} of the {of}" for of, peak in report.peak_memory.items())),
        ("Adjusted", "\n".join(training.adjustments)),
    ]
    return [(name, value) for name, value in rows if value]


def provenance_rows(report: Report) -> list[tuple[str, str]]:
    """Where model and figures come from and are stored: name and value, without unknown ones."""
    rows = [
        ("Run", f"{report.namespace}/{report.name}, attempt {report.attempt}"),
        ("Finished", report.finished),
        *origin_rows(report),
        ("Resumed from", report.provenance.resumed_from),
        ("Model", report.results.model_uri),
        ("Adapter", report.results.adapter_uri),
        ("Report", report.results.report_uri),
    ]
    return [(name, value) for name, value in rows if value]


def origin_rows(report: Report) -> list[tuple[str, str]]:
    """The provenance that is published with the model: without the folder of the run."""
    source = report.provenance
    rows = [
        ("Base model", report.model.base_model or "none: trained from scratch"),
        ("Model revision", source.model_revision),
        ("Data set", report.dataset.name),
        ("Data set revision", source.dataset_revision),
        ("Fingerprint of the prepared data", source.dataset_fingerprint or report.dataset.fingerprint),
        ("Spec, SHA-256", source.spec_hash),
        ("Seed", str(source.seed) if source.seed is not None else None),
        ("Image", source.image),
        ("Commit of LMFineTune", source.git),
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
