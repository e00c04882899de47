"""``report.html``: one self-contained page, without requests. Its one script reads values off the curves and zooms."""

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmft_api.figures import EVAL_LOSS, of_task
from lmft_api.text.shown import printable
from lmft_api.wire.report import CurvePoint, Report
from lmft_job import tasks
from lmft_job.report import formatting, tables
from lmft_job.report.charts import histogram
from lmft_job.report.charts.curves import curves
from lmft_job.report.remarks import of_lengths
from lmft_job.report.samples import any_marked, sample_of
from lmft_job.report.snippet import manifest_of, usage

NO_TIME_SECONDS = 0.05
"""Shorter times are not listed: the last evaluation is part of training, unless training ended between two."""


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
        # Text written by a person or a model may contain characters that HTML forbids.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    style, script = own_file("report.css"), own_file("report.js")
    settings = tables.settings_rows(report)
    samples = [sample_of(sample.prompt, sample.before, sample.after) for sample in report.results.samples]
    lengths, chats = of_lengths(report.dataset), report.dataset.conversations
    page = environment.get_template(
        "report.html.j2"
    ).render(
        report=report,
        words=formatting,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=policy(style, script, "form-action 'none'"),
        task=tasks.of(report.task),
        outcome=formatting.outcome(report),
        verdict=formatting.verdict(report.results),
        tiles=tables.tiles_of(report),
        charts=curves(report, curve),
        manifest=manifest_of(report),
        evaluations=tables.evaluation_rows(report),
        columns=[EVAL_LOSS, *(kind for kind in of_task(report.task) if kind != EVAL_LOSS)],
        samples=samples,
        marked=any_marked(samples),
        figures=tables.figure_rows(report),
        data=tables.data_rows(report),
        lengths=lengths,
        lengths_drawn=histogram.of_lengths(report.dataset, lengths),
        examples=report.dataset.examples or (chats.examples if chats else []),
        changed=[row for row in settings if row.changed],
        settings=settings,
        training=tables.training_rows(report),
        timings=[
            (name[:1].upper() + name[1:].replace("_", " "), formatting.duration(seconds))
            for name, seconds in report.timings.items()
            if seconds >= NO_TIME_SECONDS or not math.isfinite(seconds)
        ],
        provenance=tables.provenance_rows(report),
        remarks=tables.remarks(report),
        usage=usage(report),
    )
    return page.encode("utf-8", errors="replace")


def own_file(name: str) -> str:
    """The text of one of the page's own files."""
    return resources.files("lmft_job.report").joinpath("templates", name).read_text(encoding="utf-8")


def policy(style: str, script: str, forms: str) -> str:
    """The content security policy of a page with this style and this script, and no others."""
    return f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; {forms}"


def _hash(text: str) -> str:
    """A source expression of Content Security Policy Level 3 (section 2.3.1) that admits this element alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
