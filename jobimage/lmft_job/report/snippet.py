"""How to load the model, as code that can be pasted."""

import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lmft_api.spec import Task
from lmft_api.wire.report import Report

PROMPT_LENGTH = 200
"""A longer prompt is cut in the example."""
_FALLBACK_PROMPT = {
    Task.CAUSAL_LM: "Once upon a time",
    Task.MASKED_LM: "The sky is <mask>.",
    Task.SEQUENCE_CLASSIFICATION: "What a pleasant surprise!",
}
_NEW_TOKENS = 20
PIPELINES = {
    Task.CAUSAL_LM: "text-generation",
    Task.MASKED_LM: "fill-mask",
    Task.SEQUENCE_CLASSIFICATION: "text-classification",
}
"""Name of the transformers pipeline for each task."""


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
    prompt = report.results.samples[0].prompt if report.results.samples else _FALLBACK_PROMPT[report.task]
    call = f"pipe({prompt[:PROMPT_LENGTH]!r})"
    if report.task == Task.CAUSAL_LM:
        # The pipeline's own default may go beyond the positions that a small model has.
        length = report.settings.get("sample.max_new_tokens", _NEW_TOKENS)
        call = f"pipe({prompt[:PROMPT_LENGTH]!r}, max_new_tokens={length})"
    elif report.task == Task.MASKED_LM:
        call = f"pipe({prompt[:PROMPT_LENGTH]!r}.replace('<mask>', pipe.tokenizer.mask_token))"
    lines = [
        "from transformers import pipeline",
        f"pipe = pipeline({PIPELINES[report.task]!r}, model={uri!r})",
        f"print({call})",
    ]
    return LoadSnippet(copy, "\n".join(lines))
