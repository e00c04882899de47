"""How to load the model, as code to paste."""

import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lmft_api.wire.report import Report
from lmft_job import tasks

PROMPT_LENGTH = 200
"""Characters of a prompt in the example; a longer one is cut."""


@dataclass(frozen=True)
class LoadSnippet:
    """Attributes: copy: shell command to fetch the model first, if it lies in object storage; code: three lines."""

    copy: str | None
    code: str


def usage(report: Report, place: str | None = None) -> LoadSnippet:
    """How to load the report's model from ``place`` (default: where the run left it)."""
    uri = place or report.results.model_uri or "model"
    copy = None
    if uri.startswith("s3://"):
        copy = f"aws s3 cp --recursive {shlex.quote(uri)} model"
        uri = "model"
    elif uri.startswith("file://"):
        uri = unquote(urlsplit(uri).path)
    task = tasks.of(report.task)
    prompt = report.results.samples[0].prompt if report.results.samples else task.example
    lines = [
        "from transformers import pipeline",
        f"pipe = pipeline({task.pipeline!r}, model={uri!r})",
        f"print({task.call(prompt[:PROMPT_LENGTH], report.settings)})",
    ]
    return LoadSnippet(copy, "\n".join(lines))
