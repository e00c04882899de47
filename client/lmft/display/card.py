"""A run, or several, as HTML for a notebook: what the cluster says is text in it, and never markup.

Without scripts, style sheets and addresses of others, so that it looks the same in a notebook that is not trusted.
"""

from collections.abc import Sequence
from html import escape

from lmft.display.curve import curve
from lmft.display.history import History
from lmft_api.figures import EVAL_LOSS, FIGURES, known
from lmft_api.status import ConditionStatus, LMFineTuneStatus
from lmft_api.text.shown import one_line, printable

_COLOURS = {ConditionStatus.TRUE: "#2e7d32", ConditionStatus.FALSE: "#c62828", ConditionStatus.UNKNOWN: "#8a6d00"}
_LONGEST = 600
_MOST_ROWS = 1000
_CELL = 'style="text-align:left;padding:2px 12px 2px 0"'


def card(namespace: str, name: str, status: LMFineTuneStatus, history: History | None = None) -> str:
    """One run: its state, how far it is, its loss curve, figures before and now, samples, and where things lie.

    Args:
        history: losses that were seen before; those of the status are always in the curve.
    """
    condition = status.succeeded
    state = condition.status if condition else ConditionStatus.UNKNOWN
    reason = condition.reason if condition else "Pending"
    parts = [
        f"<div><b>{_text(f'{namespace}/{name}')}</b> {_text(status.model or '')} "
        f'<b style="color:{_COLOURS[state]}">{_text(reason)}</b></div>'
    ]
    if condition is not None and condition.message:
        parts.append(f"<div>{_text(condition.message)}</div>")
    parts += [_bar(status), _curve(status, history), _figures(status), _samples(status), _places(status)]
    return f'<div style="font-family:sans-serif;max-width:56em">{"".join(parts)}</div>'


def table(runs: Sequence[tuple[str, str, LMFineTuneStatus]]) -> str:
    """Runs as a table, as ``lmft ls`` has them."""
    head = "".join(f"<th {_CELL}>{name}</th>" for name in ("run", "model", "state", "progress", "result"))
    rows = []
    for namespace, name, status in runs[:_MOST_ROWS]:
        progress = status.progress.display if status.progress else None
        cells = (f"{namespace}/{name}", status.model, status.reason or "Pending", progress, short_result(status))
        rows.append("<tr>" + "".join(f"<td {_CELL}>{_text(cell or '')}</td>" for cell in cells) + "</tr>")
    left = len(runs) - len(rows)
    more = f"<div>and {left} more</div>" if left > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def short_result(status: LMFineTuneStatus) -> str:
    """The first figure of a run: ``perplexity 49.61``; empty where there is none yet."""
    results = status.results
    figures = [f"{kind.word} {getattr(results, kind.name)}" for kind in known(results) if kind != EVAL_LOSS]
    return figures[0] if figures else ""


def _text(text: str) -> str:
    return escape(one_line(text, _LONGEST))


def _bar(status: LMFineTuneStatus) -> str:
    progress = status.progress
    if progress is None or progress.percent is None:
        return ""
    said = [f"{progress.percent}%"]
    said += [f"step {progress.step}/{progress.total_steps}"] if progress.step is not None else []
    said += [f"loss {progress.loss}"] if progress.loss else []
    said += [f"{progress.eta} left"] if progress.eta and not status.ended else []
    percent = min(100, max(0, progress.percent))
    return f'<div><progress max="100" value="{percent}" style="width:20em"></progress> {_text(" · ".join(said))}</div>'


def _curve(status: LMFineTuneStatus, history: History | None) -> str:
    seen = history or History()
    seen.add(status)
    return curve(seen.points())


def _figures(status: LMFineTuneStatus) -> str:
    rows = []
    for kind in FIGURES if status.results is not None else ():
        figure, baseline, error, baseline_error = (getattr(status.results, name) for name in kind.fields)
        before, now = _within(baseline, baseline_error), _within(figure, error)
        if before or now:
            cells = (kind.label or kind.word, before, now)
            rows.append("<tr>" + "".join(f"<td {_CELL}>{_text(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th {_CELL}>{name}</th>" for name in ("", "before", "now"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _within(figure: str | None, error: str | None) -> str:
    return f"{figure} ± {error}" if figure and error else figure or ""


def _samples(status: LMFineTuneStatus) -> str:
    results = status.results
    if results is None or not status.ended:
        return ""
    return "".join(
        f"<details><summary>{_text(f'“{sample.prompt}”')}</summary>"
        f"<div>before: {_whole(sample.before or '')}</div><div>after: {_whole(sample.after or '')}</div></details>"
        for sample in results.samples or ()
    )


def _whole(text: str) -> str:
    return f'<span style="white-space:pre-wrap">{escape(printable(text))}</span>'


def _places(status: LMFineTuneStatus) -> str:
    results = status.results
    if results is None or not status.ended:
        return ""
    # As text: what a status calls an address may be anything, and a link would invite a click.
    places = (("model", results.model_uri), ("report", results.report_uri))
    return "".join(f"<div>{name}: <code>{_text(uri)}</code></div>" for name, uri in places if uri)
