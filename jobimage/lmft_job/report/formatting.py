"""Figures and sentences for people, the same on the console, in the page and on the model card."""

import math
from enum import StrEnum

from lmft_api.spec import Task
from lmft_api.wire.report import EvaluationRow, Report, ResultFigures
from lmft_job.evaluation.uncertainty import may_be_chance

TASK_NAMES = {
    Task.CAUSAL_LM: "causal language modeling",
    Task.MASKED_LM: "masked language modeling",
    Task.SEQUENCE_CLASSIFICATION: "sequence classification",
}
"""Tasks in running text."""


def count(number: float) -> str:
    """Whole number with thousands separators: 118,204."""
    return f"{number:,.0f}" if math.isfinite(number) else _not_finite(number)


def figure(number: float | None, digits: int = 4) -> str:
    """A measured number to so many significant digits: 7,912 · 212.4 · 49.61 · 0.003218; a dash for None."""
    if number is None:
        return "–"
    if not math.isfinite(number):
        return _not_finite(number)
    if number == 0:
        return "0"
    # Rounded first: 9.9996 is 10.00, not 10.000.
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


def _tells(error: float | None) -> bool:
    return error is not None and math.isfinite(error)


def short_count(number: int) -> str:
    """3.6M, 82M, 1.5B: the way people name model sizes."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= 0.9995 * size:  # what rounds to 1,000 of a unit is 1 of the next
            return f"{number / size:.3g}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """0.4 s · 41 s · 14 minutes · 2 h 5 min: no more than a reader wants."""
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
    return quantity(data.eval_rows, "held-out rows")


def outcome(report: Report) -> str:
    """One sentence: what moved, from where to where, on what, how long it took and on which device."""
    moved = _moved(report.results)
    has_figures = bool(moved)
    where = "on a CPU" if report.device.upper() == "CPU" else f"on one {report.device}"
    resumed, took = report.training.resumed_from_step, duration(seconds_in_all(report)) if report.timings else ""
    if resumed:
        # The clock ran for the last attempt only; the sentence must not pass it off as the whole run's.
        last = f"; attempt {report.attempt} went on from step {count(resumed)}" + (f" and took {took}" if took else "")
    else:
        where, last = (f"in {took} {where}" if took else where), ""
    moved = moved or f"Trained for {quantity(report.training.steps, 'steps')}"
    measured = f" on {held_out(report)}" if has_figures else ""
    return f"{moved}{measured} {where}{last}."


class Verdict(StrEnum):
    """What the change since before training is worth."""

    BETTER = "better"
    CHANCE = "chance"
    """So small that another choice of the held-out data might not show it."""
    WORSE = "worse"


def verdict(results: ResultFigures) -> Verdict | None:
    """What came of the training, by the figure that the first sentence names; None where there is nothing to compare.

    The change is held against its own standard error. Where that is not known, as in reports of earlier versions that
    have none, against those of both figures; where neither is, it is taken as it stands.
    """
    after: float | None
    if results.accuracy is not None:
        after, before, better = results.accuracy, results.baseline_accuracy, 1
        error = results.accuracy_change_standard_error
        errors = (results.accuracy_standard_error, results.baseline_accuracy_standard_error)
    else:
        after, before, better = results.eval_loss, results.baseline_eval_loss, -1
        error = results.eval_loss_change_standard_error
        errors = (results.eval_loss_standard_error, results.baseline_eval_loss_standard_error)
    if after is None or before is None or not math.isfinite(after - before):
        return None
    if error is None and None not in errors:
        error = math.hypot(*(value or 0.0 for value in errors))
    if after == before or may_be_chance(after - before, error):
        return Verdict.CHANCE
    return Verdict.BETTER if (after - before) * better > 0 else Verdict.WORSE


VERDICTS = {
    Verdict.CHANCE: "no change that stands out from chance",
    Verdict.WORSE: "worse than before training",
}
"""What is said of a change that is no improvement."""


def quality(evaluation: EvaluationRow) -> str:
    """The figures of one evaluation: perplexity 98.43 ± 1.9."""
    accuracy, error = evaluation.accuracy, evaluation.accuracy_standard_error
    parts = []
    if evaluation.perplexity is not None:
        parts.append(f"perplexity {figure_within(evaluation.perplexity, evaluation.perplexity_standard_error)}")
    if accuracy is not None:
        parts.append(f"accuracy {percent_within(accuracy, error)}")
    if evaluation.perplexity is None:
        parts.append(f"loss {figure_within(evaluation.eval_loss, evaluation.eval_loss_standard_error)}")
    return " · ".join(parts)


def before_and_after(results: ResultFigures, perplexity: str, accuracy: str, loss: str) -> list[tuple[str, str, str]]:
    """Each figure by the name given for it, before and after, with standard errors; a dash for what is not known."""
    return [
        (
            perplexity,
            figure_within(results.baseline_perplexity, results.baseline_perplexity_standard_error),
            figure_within(results.perplexity, results.perplexity_standard_error),
        ),
        (
            accuracy,
            percent_within(results.baseline_accuracy, results.baseline_accuracy_standard_error),
            percent_within(results.accuracy, results.accuracy_standard_error),
        ),
        (
            loss,
            figure_within(results.baseline_eval_loss, results.baseline_eval_loss_standard_error),
            figure_within(results.eval_loss, results.eval_loss_standard_error),
        ),
    ]


def _moved(results: ResultFigures) -> str:
    """The change of the figure that counts, and what is to be thought of it when it is no improvement."""
    if results.accuracy is not None:
        before, shown_before = results.baseline_accuracy, percent(results.baseline_accuracy)
        what, after = "Accuracy", results.accuracy
        shown, plain = percent_within(after, results.accuracy_standard_error), percent(after)
    elif results.perplexity is not None:
        before, shown_before = results.baseline_perplexity, figure(results.baseline_perplexity)
        what, after = "Perplexity", results.perplexity
        shown, plain = figure_within(after, results.perplexity_standard_error), figure(after)
    elif results.eval_loss is not None:
        before, shown_before = results.baseline_eval_loss, figure(results.baseline_eval_loss)
        what, after = "Held-out loss", results.eval_loss
        shown, plain = figure_within(after, results.eval_loss_standard_error), figure(after)
    else:
        return ""
    if before is None:
        return f"{what} is {shown}"
    if plain == shown_before:
        return f"{what} stayed at {shown}"
    found = verdict(results)
    remark = f" ({VERDICTS[found]})" if found in VERDICTS else ""
    if found == Verdict.CHANCE or not (math.isfinite(before) and math.isfinite(after)):
        return f"{what} went from {shown_before} to {shown}{remark}"
    return f"{what} {'fell' if after < before else 'rose'} from {shown_before} to {shown}{remark}"


def _not_finite(number: float) -> str:
    return "NaN" if math.isnan(number) else "∞" if number > 0 else "−∞"
