"""What runs have in common, where they differ, and which came out best: pure decisions from their reports."""

import json
import math
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from lmft_api.figures import FIGURES, Better, Figure, Scale, of_task
from lmft_api.wire.report import Report
from lmft_job.evaluation.chance import may_be_chance

_OF_DATA = "dataset."
_UNSET = "–"


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, in the order given.

    Attributes:
        titles: a name for each run.
        figures: each figure that a run has, with (value, standard error) by run; None for what a run lacks.
        differences: each setting that differs, by its path in the manifest, with the value by run.
        samples: each prompt that all runs answered, with the answer after training by run.
        verdict: which run is best, or why none is named; a sentence.
        best: index of the best run; None where none is named.
    """

    titles: list[str]
    figures: dict[Figure, list[tuple[float, float | None] | None]]
    differences: dict[str, list[str]]
    samples: dict[str, list[str]]
    verdict: str
    best: int | None = None


def compare(reports: list[Report], titles: list[str]) -> Comparison:
    """Compare at least two runs."""
    figures = {kind: [_measured(report, kind) for report in reports] for kind in FIGURES}
    verdict, best = _verdict(reports, titles)
    return Comparison(
        titles,
        {kind: values for kind, values in figures.items() if any(values)},
        _differences(reports),
        _samples(reports),
        verdict,
        best,
    )


def _measured(report: Report, kind: Figure) -> tuple[float, float | None] | None:
    value = getattr(report.results, kind.name, None)
    return None if value is None else (value, getattr(report.results, kind.standard_error, None))


def _verdict(reports: list[Report], titles: list[str]) -> tuple[str, int | None]:
    """The best run, if the figures were measured on the same: same task, same held-out rows, same tokens."""
    tasks = {report.task for report in reports}
    if len(tasks) > 1:
        return f"Not ranked: the runs learn different tasks ({', '.join(sorted(tasks))}).", None
    decisive = _decisive(of_task(reports[0].task)[0])
    if why := _incomparable(reports, decisive):
        return f"Not ranked: {why}", None
    values = [_measured(report, decisive) for report in reports]
    known = [(index, *value) for index, value in enumerate(values) if value is not None and math.isfinite(value[0])]
    if len(known) < 2:
        return f"Not ranked: fewer than two runs have a {decisive.word} that is a number.", None
    ranked = sorted(known, key=lambda entry: -decisive.better * entry[1])
    (first, value, error), (second, other, other_error) = ranked[:2]
    if value == other:
        return f"{titles[first]} and {titles[second]} have the same {decisive.word}.", None
    together = math.hypot(error, other_error) if error is not None and other_error is not None else None
    words = f"{titles[first]} has the {'highest' if decisive.better == Better.UP else 'lowest'} {decisive.word}"
    if together is None:
        return f"{words}; the uncertainty of the difference is not known.", first
    size = f"the difference to {titles[second]} is {abs(value - other):.2g} ± {together:.2g}"
    if may_be_chance(value - other, together):
        return f"{words}, but {size}: with other held-out rows the order may be another.", first
    return f"{words}; {size}.", first


def _decisive(headline: Figure) -> Figure:
    """The figure to rank by: perplexity is a function of the loss, whose errors are symmetric."""
    return next((kind for kind in FIGURES if kind.name == headline.function_of), headline)


def _incomparable(reports: list[Report], decisive: Figure) -> str:
    """Why figures must not be ranked; empty if they may be."""
    prints = {report.dataset.fingerprint for report in reports}
    if len(prints) == 1 and None not in prints:
        return ""  # the same rows on both sides, and the same tokens
    settings = [{name: value for name, value in report.settings.items() if _shapes_data(name)} for report in reports]
    differing = sorted({name for one in settings for name in one if len({str(s.get(name)) for s in settings}) > 1})
    if differing:
        names = ", ".join(_path(name) for name in differing[:5]) + (" and more" if len(differing) > 5 else "")
        return f"the runs were measured on different held-out data ({names} differ)."
    if len({report.dataset.eval_rows for report in reports}) > 1:
        return "the runs were measured on different held-out data (another number of rows)."
    if decisive.scale == Scale.SHARE:
        return ""  # a share of rows is independent of the tokens
    return (
        f"the tokenizers or the contents of the data differ, and a {decisive.word} for each token can be compared "
        "only between runs with the same tokens."
    )


def _shapes_data(name: str) -> bool:
    return name.startswith(_OF_DATA) or name == "training.seed"


def _differences(reports: list[Report]) -> dict[str, list[str]]:
    rows = [{**_inputs(report), **report.settings} for report in reports]
    names = dict.fromkeys(name for row in rows for name in row)
    values = {_path(name): [_shown(row.get(name)) for row in rows] for name in names}
    return {path: shown for path, shown in values.items() if len(set(shown)) > 1}


def _inputs(report: Report) -> dict[str, Any]:
    """What a run was made from, beside its settings."""
    return {"model": report.model.name, "dataset": report.dataset.name, "precision": report.precision}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _UNSET
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return _UNSET if value is None else str(value)


def _path(name: str) -> str:
    """``training.learning_rate`` as the manifest has it: ``training.learningRate``."""
    return ".".join(to_camel(part) for part in name.split("."))


def _samples(reports: list[Report]) -> dict[str, list[str]]:
    answers = [{sample.prompt: sample.after or "" for sample in report.results.samples} for report in reports]
    shared = [prompt for prompt in answers[0] if all(prompt in others for others in answers)]
    return {prompt: [own[prompt] for own in answers] for prompt in shared}
