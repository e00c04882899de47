"""The pages as HTML; what finished runs are shown as is the report's own page, written anew from its figures."""

from collections.abc import Sequence

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmft_api.text.shown import printable
from lmft_api.wire.report import Report
from lmft_job.cli.compare.comparison import compare
from lmft_job.cli.compare.runs import titles
from lmft_job.cli.runs.listing import Row
from lmft_job.cli.ui.source import Run, figures_of
from lmft_job.report.charts.curves import curves_of_training
from lmft_job.report.formatting import shown_within
from lmft_job.report.page import own_file, policy
from lmft_job.report.samples import answers_beside, any_marked, sample_of

RELOAD_SECONDS = 5
"""How often a page reloads that shows something that changes."""

_environment = Environment(
    loader=ChoiceLoader([PackageLoader(package, "templates") for package in ("lmft_job.cli.ui", "lmft_job.report")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
)


def list_page(rows: Sequence[Row], where: str) -> bytes:
    """All runs, with a box at each to choose some for comparison."""
    return _render("list.html.j2", title="Runs", rows=rows, where=where, reload=None)


def run_page(run: Run) -> bytes:
    """A run without a report: what its status and its steps tell so far."""
    status = run.status
    ended = status is not None and status.ended
    answered = (status.results.samples or []) if status and status.results else []
    samples = [sample_of(sample.prompt, sample.before, sample.after) for sample in answered]
    return _render(
        "run.html.j2",
        title=run.row.name,
        run=run,
        charts=curves_of_training(run.curve),
        message=status.succeeded.message if status and status.succeeded else "",
        figures=figures_of(status) if status and status.results else [],
        samples=samples,
        marked=any_marked(samples),
        reload=None if ended else RELOAD_SECONDS,
    )


def compare_page(reports: list[Report]) -> bytes:
    """Finished runs beside each other; at least two."""
    found = compare(reports, titles(reports))
    figures = [
        (kind.label or kind.word, ["–" if value is None else shown_within(kind, *value) for value in values])
        for kind, values in found.figures.items()
    ]
    samples = [(prompt, answers_beside(answers)) for prompt, answers in found.samples.items()]
    return _render("compare.html.j2", title="Comparison", found=found, figures=figures, samples=samples, reload=None)


def message_page(title: str, message: str) -> bytes:
    """Something that went wrong."""
    return _render("message.html.j2", title=title, message=message, reload=None)


def _render(template: str, **values: object) -> bytes:
    style, script = own_file("report.css"), own_file("report.js")
    page = _environment.get_template(template).render(
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=policy(style, script, "form-action 'self'"),
        **values,
    )
    return page.encode("utf-8", errors="replace")
