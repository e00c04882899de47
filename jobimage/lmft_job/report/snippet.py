"""How to load the model, as code to paste."""

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from lmft_api import API_VERSION, KIND
from lmft_api.manifest.writer import write_documents
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
    if report.adapter is not None and not report.adapter.merged:
        return adapter_usage(report, place)
    copy, uri = _local(place or report.results.model_uri or "model", "model")
    task = tasks.of(report.task)
    prompt = report.results.samples[0].prompt if report.results.samples else task.example
    lines = [
        "from transformers import pipeline",
        f"pipe = pipeline({task.pipeline!r}, model={uri!r})",
        f"print({task.call(prompt[:PROMPT_LENGTH], report.settings)})",
    ]
    return LoadSnippet(copy, "\n".join(lines))


def adapter_usage(report: Report, place: str | None = None) -> LoadSnippet:
    """How to load the report's adapter from ``place`` on its base model."""
    told, task = report.adapter, tasks.of(report.task)
    name = (told.base if told else None) or report.model.base_model or "base"
    fetched = [_local(name, "base"), _local(place or report.results.adapter_uri or "adapter", "adapter")]
    (_, base), (_, adapter) = fetched
    options = [f"revision={told.base_revision!r}"] if told and told.base_revision else []
    if report.dataset.labels:
        options.append(f"num_labels={len(report.dataset.labels)}")
    lines = [
        "from peft import PeftModel",
        f"from transformers import {task.auto_class}",
        f"base = {task.auto_class}.from_pretrained({', '.join([repr(base), *options])})",
        f"model = PeftModel.from_pretrained(base, {adapter!r})",
    ]
    return LoadSnippet("\n".join(copy for copy, _ in fetched if copy) or None, "\n".join(lines))


def manifest_of(report: Report) -> str | None:
    """The run as a manifest with every default written out; None for reports of releases that did not keep it."""
    if not report.spec:
        return None
    metadata = {"name": report.name}
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": _quoted(report.spec)}
    return write_documents([manifest], width=100)


def _quoted(value: Any) -> Any:
    """Decimals as text, as manifests want them, except in a model's own configuration."""
    plain = json.loads(json.dumps(value, default=str))
    model = plain.get("model")
    configuration = model.get("fromConfig") if isinstance(model, dict) else None
    quoted = _texts(plain)
    if configuration is not None:
        quoted["model"]["fromConfig"] = configuration
    return quoted


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return repr(value) if isinstance(value, float) else value


def _local(uri: str, folder: str) -> tuple[str | None, str]:
    """The command that fetches a folder from object storage, if it lies there, and its name on this machine."""
    if uri.startswith("s3://"):
        return f"aws s3 cp --recursive {shlex.quote(uri)} {folder}", folder
    if uri.startswith("file://"):
        return None, unquote(urlsplit(uri).path)
    return None, uri
