"""Figures and sentences for people, the same on the console, in the page and on the model card."""

import math
from dataclasses import dataclass
from enum import StrEnum

from lmft_api.figures import FIGURES, Figure, Scale, known
from lmft_api.wire.report import EvaluationRow, Report, ResultFigures
from lmft_job.evaluation.chance import may_be_chance


def count(number: float) -> str:
    """Whole number with thousands separators: 118,204."""
    return f"{number:,.0f}" if math.isfinite(number) else _not_finite(number)


def figure(number: float | None, digits: int = 4) -> str:
    """A measured number with this many significant digits: 7,912 · 212.4 · 49.61 · 0.003218; a dash for None."""
    if number is None:
        return "–"
    if not math.isfinite(number):
        return _not_finite(number)
    if number == 0:
        return "0"
    # Rounded first: 9.9996 becomes 10.00, not 10.000.
    magnitude = math.floor(math.log10(abs(float(f"{number:.{digits - 1}e}"))))
    if magnitude >= 9 or magnitude < -4:
        return f"{number:.{digits - 1}g}"
    return f"{round(number, digits - 1 - magnitude):,.{max(0, digits - 1 - magnitude)}f}"


def percent(share: float | None) -> str:
    """A share of 0 to 1 as 87.4 %."""
    if share is None:
        return "–"
    return f"{share * 100:.1f} %" if math.isfinite(share) else _not_finite(share)


def figure_within(number: float | None, error: float | None) -> str:
    """A measured number with its standard error: 98.43 ± 1.9."""
    shown = figure(number)
    return shown if number is None or not _tells(error) else f"{shown} ± {figure(error, 2)}"


def percent_within(share: float | None, error: float | None) -> str:
    """A share with its standard error: 57.5 ± 7.9 %."""
    shown = percent(share)
    return shown if share is None or not _tells(error) else f"{shown[:-2]} ± {percent(error)}"


def shown(kind: Figure, value: float | None) -> str:
    """A figure of the table: a share as 57.5 %, others as 98.43."""
    return percent(value) if kind.scale == Scale.SHARE else figure(value)


def shown_within(kind: Figure, value: float | None, error: float | None) -> str:
    """A figure of the table with its standard error: 57.5 ± 7.9 %, or 98.43 ± 1.9."""
    return percent_within(value, error) if kind.scale == Scale.SHARE else figure_within(value, error)


def _tells(error: float | None) -> bool:
    return error is not None and math.isfinite(error)


def short_count(number: int) -> str:
    """3.6M, 82M, 1.5B: how people write model sizes."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= 0.9995 * size:  # a number that rounds to 1,000 of a unit is 1 of the next
            return f"{number / size:.3g}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """0.4 s · 41 s · 14 minutes · 2 h 5 min: as precise as a reader needs."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} minutes"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def clock(seconds: float) -> str:
    """0:00:41, for a countdown."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def quantity(number: int, noun: str) -> str:
    """1 block, 2 blocks; the noun is given in the plural."""
    return f"{count(number)} {noun[:-1] if number == 1 and noun.endswith('s') else noun}"


def seconds_in_all(report: Report) -> float:
    """Wall time of the attempt that finished the run, in seconds."""
    return sum(value for value in report.timings.values() if math.isfinite(value))


def held_out(report: Report) -> str:
    """What the figures were measured on: 1,021 held-out blocks."""
    data = report.dataset
    if data.eval_blocks is not None:
        return quantity(data.eval_blocks, "held-out blocks")
    if data.conversations is not None:
        tokens = count(data.conversations.eval_trained_tokens)
        return f"the {tokens} trained tokens of {quantity(data.eval_rows, 'held-out conversations')}"
    return quantity(data.eval_rows, "held-out rows")


def outcome(report: Report) -> str:
    """One sentence: the figure before and after, its data, the duration and the device."""
    moved = _moved(report.results)
    has_figures = bool(moved)
    where = "on a CPU" if report.device.upper() == "CPU" else f"on one {report.device}"
    resumed, took = report.training.resumed_from_step, duration(seconds_in_all(report)) if report.timings else ""
    if resumed:
        # The time is that of the last attempt only; the sentence must not present it as the whole run's.
        last = f"; attempt {report.attempt} resumed from step {count(resumed)}" + (f" and took {took}" if took else "")
    else:
        where, last = (f"in {took} {where}" if took else where), ""
    moved = moved or f"Trained for {quantity(report.training.steps, 'steps')}"
    measured = f" on {held_out(report)}" if has_figures else ""
    return f"{moved}{measured} {where}{last}."


@dataclass(frozen=True)
class Change:
    """A figure before and after training, with standard errors; None for unknown values."""

    before: float | None
    after: float | None
    error_before: float | None
    error: float | None
    error_of_change: float | None

    @classmethod
    def of(cls, kind: Figure, results: ResultFigures) -> "Change":
        """The change of a figure of the table."""
        return cls(
            before=getattr(results, kind.baseline),
            after=getattr(results, kind.name),
            error_before=getattr(results, kind.baseline_standard_error),
            error=getattr(results, kind.standard_error),
            error_of_change=getattr(results, kind.change_standard_error, None),
        )


class Verdict(StrEnum):
    """Whether the change since the baseline is an improvement."""

    BETTER = "better"
    CHANCE = "chance"
    """So small that another sample of held-out data might not show it."""
    WORSE = "worse"


def verdict(results: ResultFigures) -> Verdict | None:
    """The result of the training, by the figure in the first sentence; None if there is nothing to compare.

    The change is compared with its own standard error. If that is unknown, as in reports of earlier versions, with
    those of both figures; if neither is known, the change is taken as it is.
    """
    headline = next(known(results), None)
    if headline is None:
        return None
    kind = next((other for other in FIGURES if other.name == headline.function_of), headline)
    change = Change.of(kind, results)
    if change.after is None or change.before is None or not math.isfinite(change.after - change.before):
        return None
    error, errors = change.error_of_change, (change.error, change.error_before)
    if error is None and None not in errors:
        error = math.hypot(*(value or 0.0 for value in errors))
    moved = change.after - change.before
    if moved == 0 or may_be_chance(moved, error):
        return Verdict.CHANCE
    return Verdict.BETTER if moved * kind.better > 0 else Verdict.WORSE


VERDICTS = {
    Verdict.CHANCE: "no significant change",
    Verdict.WORSE: "worse than before training",
}
"""Remarks on a change that is not an improvement."""


def quality(evaluation: EvaluationRow) -> str:
    """The figures of one evaluation: perplexity 98.43 ± 1.9."""
    kinds = list(known(evaluation))
    replaced = {kind.function_of for kind in kinds}
    return " · ".join(f"{kind.word} {evaluated(kind, evaluation)}" for kind in kinds if kind.name not in replaced)


def evaluated(kind: Figure, evaluation: EvaluationRow) -> str:
    """A figure of an evaluation with its standard error; a dash if unknown."""
    return shown_within(kind, getattr(evaluation, kind.name), getattr(evaluation, kind.standard_error))


def before_and_after(results: ResultFigures) -> list[tuple[Figure, str, str]]:
    """Each figure before and after, with standard errors; a dash for unknown values."""
    changes = [(kind, Change.of(kind, results)) for kind in FIGURES]
    return [
        (
            kind,
            shown_within(kind, change.before, change.error_before),
            shown_within(kind, change.after, change.error),
        )
        for kind, change in changes
    ]


def _moved(results: ResultFigures) -> str:
    """The change of the main figure, with a remark if it is not an improvement."""
    kind = next(known(results), None)
    if kind is None:
        return ""
    change = Change.of(kind, results)
    before, after, what = change.before, change.after, kind.title
    shown_after, shown_before = shown_within(kind, after, change.error), shown(kind, before)
    if before is None:
        return f"{what} is {shown_after}"
    if shown(kind, after) == shown_before:
        return f"{what} stayed at {shown_after}"
    found = verdict(results)
    remark = f" ({VERDICTS[found]})" if found in VERDICTS else ""
    if found == Verdict.CHANCE or after is None or not (math.isfinite(before) and math.isfinite(after)):
        return f"{what} went from {shown_before} to {shown_after}{remark}"
    return f"{what} {'fell' if after < before else 'rose'} from {shown_before} to {shown_after}{remark}"


def _not_finite(number: float) -> str:
    return "NaN" if math.isnan(number) else "∞" if number > 0 else "−∞"
