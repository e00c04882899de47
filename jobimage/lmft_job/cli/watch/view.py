"""What ``lmft watch`` shows: a run's status as a terminal page. No I/O."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmft.display.history import History
from lmft.runs import Event
from lmft_api.figures import FIGURES
from lmft_api.status import ConditionStatus, LMFineTuneStatus
from lmft_api.text.shown import shown

_BLOCKS = " ▁▂▃▄▅▆▇█"
_COLOURS = {ConditionStatus.TRUE: "green", ConditionStatus.FALSE: "red", ConditionStatus.UNKNOWN: "yellow"}


def sparkline(values: Sequence[float], width: int) -> str:
    """A one-row chart: the values averaged into ``width`` means, lowest to highest as block heights."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(_BLOCKS[1 + round((mean - low) / span * (len(_BLOCKS) - 2))] for mean in means)


def picture(
    name: str, status: LMFineTuneStatus, history: History, events: Sequence[Event], width: int
) -> RenderableType:
    """The run as a terminal page: phase, bar, curve, attempts, last events, and the outcome when there is one."""
    condition = status.succeeded
    state = condition.status if condition else ConditionStatus.UNKNOWN
    head = Text.assemble(
        (name, "bold"), "  ", (status.model or "", "dim"), "  ",
        (condition.reason if condition else "Pending", f"bold {_COLOURS[state]}"),
    )  # fmt: skip
    parts: list[RenderableType] = [head]
    if condition is not None and condition.message:
        parts.append(Text(shown(condition.message), style="red" if state == ConditionStatus.FALSE else ""))
    progress = status.progress
    if progress is not None and progress.percent is not None:
        figures = [
            f"{progress.display or ''}",
            f"step {progress.step}/{progress.total_steps}" if progress.step is not None else "",
            f"loss {progress.loss}" if progress.loss else "",
            f"{progress.tokens_per_second:,} tok/s" if progress.tokens_per_second else "",
            f"{progress.eta} left" if progress.eta and not status.ended else "",
        ]
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=100, completed=progress.percent, width=min(40, max(10, width // 3))),
            Text("  ".join(figure for figure in figures if figure)),
        )
        parts.append(bar)
    curve = history.curve()
    if len(curve) > 1:
        parts.append(
            Text.assemble(
                ("loss ", "dim"),
                f"{curve[0]:.2f} ",
                (sparkline(curve, max(10, width - 24)), "cyan"),
                f" {curve[-1]:.2f}",
            )
        )
    parts += [_attempt(status)] if len(status.attempts or ()) > 1 else []
    parts += [_figures(status)] if status.results is not None else []
    parts += [_events(events)] if events else []
    return Group(*parts, *closing(status))


def closing(status: LMFineTuneStatus) -> list[Text]:
    """Output at the end of a run: samples, and the addresses of model and report; empty before that."""
    results = status.results
    if results is None or not status.ended:
        return []
    lines = []
    for sample in results.samples or ():
        lines.append(Text(shown(f"“{sample.prompt}”"), style="bold"))
        lines.append(Text.assemble(("  before ▸ ", "dim"), shown(sample.before or "")))
        lines.append(Text.assemble(("  after  ▸ ", "dim"), shown(sample.after or "")))
    alone = results.adapter_uri if results.adapter_uri != results.model_uri else None
    places = {"model": results.model_uri, "adapter": alone, "report": results.report_uri}
    width = max((len(label) for label, uri in places.items() if uri), default=0)
    lines += [Text.assemble((f"{label:<{width}} ", "dim"), uri) for label, uri in places.items() if uri]
    return lines


def _attempt(status: LMFineTuneStatus) -> Text:
    newest = (status.attempts or [])[-1]
    text = f"attempt {newest.number}"
    if newest.resumed_from_step is not None:
        text += f", resumed from step {newest.resumed_from_step}"
    if newest.lost_steps:
        text += f"; {newest.lost_steps} steps repeated"
    return Text(text, style="dim")


def _figures(status: LMFineTuneStatus) -> Table:
    results = status.results
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("", "before", "now"):
        table.add_column(column, justify="left" if not column else "right")
    if results is not None:
        for kind in FIGURES:
            figure, baseline, error, baseline_error = (getattr(results, name) for name in kind.fields)
            before, after = _within(baseline, baseline_error), _within(figure, error)
            if before or after:
                table.add_row(kind.label or kind.word, before, after)
    return table


def _within(figure: str | None, error: str | None) -> str:
    """A figure of the status with its standard error, if it has one."""
    return f"{figure} ± {error}" if figure and error else figure or ""


def _events(events: Sequence[Event]) -> Table:
    table = Table.grid(padding=(0, 1))
    for event in list(events)[-5:]:
        style = "yellow" if event.kind == "Warning" else "dim"
        table.add_row(
            Text(event.time[11:19], style="dim"), Text(event.reason, style=style), Text(event.message, overflow="fold")
        )
    return table
