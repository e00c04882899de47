"""A run, or several, as HTML for a notebook: what the cluster says is text in it, and never markup.

Without scripts, style sheets and addresses of others, so that it looks the same in a notebook that is not trusted.
"""

from collections.abc import Sequence

from lmft.display.curve import curve
from lmft.display.history import History
from lmft.display.html import details, rows_of, text
from lmft_api.figures import EVAL_LOSS, FIGURES, known
from lmft_api.status import ConditionStatus, LMFineTuneStatus

_COLOURS = {ConditionStatus.TRUE: "#2e7d32", ConditionStatus.FALSE: "#c62828", ConditionStatus.UNKNOWN: "#8a6d00"}
_MOST_ROWS = 1000


def card(namespace: str, name: str, status: LMFineTuneStatus, history: History | None = None) -> str:
    """One run: its state, how far it is, its loss curve, figures before and now, samples, and where things lie.

    Args:
        history: losses that were seen before; those of the status are always in the curve.
    """
    condition = status.succeeded
    state = condition.status if condition else ConditionStatus.UNKNOWN
    reason = condition.reason if condition else "Pending"
    parts = [
        f"<div><b>{text(f'{namespace}/{name}')}</b> {text(status.model or '')} "
        f'<b style="color:{_COLOURS[state]}">{text(reason)}</b></div>'
    ]
    if condition is not None and condition.message:
        parts.append(f"<div>{text(condition.message)}</div>")
    parts += [_bar(status), _curve(status, history), _figures(status), _samples(status), _places(status)]
    return f'<div style="font-family:sans-serif;max-width:56em">{"".join(parts)}</div>'


def table(runs: Sequence[tuple[str, str, LMFineTuneStatus]]) -> str:
    """Runs as a table, as ``lmft ls`` has them."""
    rows = []
    for namespace, name, status in runs[:_MOST_ROWS]:
        progress = (status.progress.display if status.progress else None) or ""
        result = short_result(status)
        rows.append((f"{namespace}/{name}", status.model or "", status.reason or "Pending", progress, result))
    left = len(runs) - len(rows)
    more = f"<div>and {left} more</div>" if left > 0 else ""
    return rows_of(("run", "model", "state", "progress", "result"), rows) + more


def short_result(status: LMFineTuneStatus) -> str:
    """The first figure of a run: ``perplexity 49.61``; empty where there is none yet."""
    results = status.results
    figures = [f"{kind.word} {getattr(results, kind.name)}" for kind in known(results) if kind != EVAL_LOSS]
    return figures[0] if figures else ""


def _bar(status: LMFineTuneStatus) -> str:
    progress = status.progress
    if progress is None or progress.percent is None:
        return ""
    said = [f"{progress.percent}%"]
    said += [f"step {progress.step}/{progress.total_steps}"] if progress.step is not None else []
    said += [f"loss {progress.loss}"] if progress.loss else []
    said += [f"{progress.eta} left"] if progress.eta and not status.ended else []
    percent = min(100, max(0, progress.percent))
    return f'<div><progress max="100" value="{percent}" style="width:20em"></progress> {text(" · ".join(said))}</div>'


def _curve(status: LMFineTuneStatus, history: History | None) -> str:
    seen = history or History()
    seen.add(status)
    return curve(seen.points(), "training loss")


def _figures(status: LMFineTuneStatus) -> str:
    rows = []
    for kind in FIGURES if status.results is not None else ():
        figure, baseline, error, baseline_error = (getattr(status.results, name) for name in kind.fields)
        before, now = _within(baseline, baseline_error), _within(figure, error)
        if before or now:
            rows.append((kind.label or kind.word, before, now))
    return rows_of(("", "before", "now"), rows) if rows else ""


def _within(figure: str | None, error: str | None) -> str:
    return f"{figure} ± {error}" if figure and error else figure or ""


def _samples(status: LMFineTuneStatus) -> str:
    results = status.results
    if results is None or not status.ended:
        return ""
    return "".join(details(each.prompt, each.before or "", each.after or "") for each in results.samples or ())


def _places(status: LMFineTuneStatus) -> str:
    results = status.results
    if results is None or not status.ended:
        return ""
    # As text: what a status calls an address may be anything, and a link would invite a click.
    places = (("model", results.model_uri), ("report", results.report_uri))
    return "".join(f"<div>{name}: <code>{text(uri)}</code></div>" for name, uri in places if uri)
