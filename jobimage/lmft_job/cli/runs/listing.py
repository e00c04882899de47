"""``lmft ls``: the runs of a folder or a cluster, newest news of each in one row."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from lmft.display.card import short_result
from lmft.runs import Run
from lmft_api.figures import EVAL_LOSS, FIGURES
from lmft_api.text.shown import json_text, one_line
from lmft_api.wire.layout import REPORT, RUN_MARKER
from lmft_api.wire.report import Report
from lmft_job.cli.compare.runs import RUNS
from lmft_job.cli.manifest import NAMESPACE
from lmft_job.report.formatting import shown_within


@dataclass(frozen=True)
class Row:
    """A run: its place, its model, how far it is, what came out."""

    namespace: str
    name: str
    model: str
    state: str
    progress: str
    result: str


def local_rows() -> list[Row]:
    """The runs in ./runs, by name."""
    folder = RUNS / NAMESPACE / "runs"
    rows = []
    for run in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not run.is_dir():
            continue
        try:
            report = Report.from_json((run / REPORT).read_bytes())
        except FileNotFoundError:
            state = "Unfinished" if (run / RUN_MARKER).exists() else "NotStarted"
            rows.append(Row(NAMESPACE, run.name, "", state, "", ""))
            continue
        except (OSError, ValidationError):
            rows.append(Row(NAMESPACE, run.name, "", "Unreadable", "", ""))
            continue
        rows.append(finished_row(NAMESPACE, report.name, report))
    return rows


def finished_row(namespace: str, name: str, report: Report) -> Row:
    """The row of a run whose report there is."""
    figures = [
        f"{kind.word} {shown_within(kind, value, None)}"
        for kind in FIGURES
        if kind != EVAL_LOSS and (value := getattr(report.results, kind.name, None)) is not None
    ]
    return Row(namespace, name, report.model.name, "Completed", "100%", ", ".join(figures[:1]))


def cluster_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows of runs of a cluster."""
    return [
        Row(
            run.namespace,
            run.name,
            run.status.model or "",
            run.reason,
            (run.progress.display if run.progress else None) or "",
            short_result(run.status),
        )
        for run in runs
    ]


def table(rows: Sequence[Row], *, namespaces: bool) -> Table:
    """The rows for people."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    names = [*(["namespace"] if namespaces else []), "name", "model", "state", "progress", "result"]
    for name in names:
        shown.add_column(name.upper(), overflow="fold")
    for row in rows:
        shown.add_row(*(Text(one_line(getattr(row, name))) for name in names))
    return shown


def as_json(rows: Sequence[Row]) -> str:
    """The rows for scripts."""
    return json_text([asdict(row) for row in rows])
