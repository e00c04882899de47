"""The manifest that ``lmft init`` writes: short, valid, and with what is worth changing in comments."""

import re
from typing import Any

from lmft_api import GROUP, KIND, VERSION
from lmft_api.manifest.writer import write_documents
from lmft_api.tasks import TASKS
from lmft_api.text.shown import one_line
from lmft_job.cli.init.data import Sample
from lmft_job.cli.init.proposal import Proposal

_LONGEST_PROMPT = 200


_TEMPLATE = "chatTemplate"
_PERHAPS = f"    # {_TEMPLATE}: {{name: ChatML}}    # if the model has no chat template of its own"


def render(name: str, model: str, sample: Sample, proposal: Proposal, *, templated: bool | None = True) -> str:
    """The manifest as YAML.

    Args:
        name: of the run.
        model: hub id or address.
        sample: the files.
        proposal: what to train on them.
        templated: whether the model has a chat template; None if that is not known.
    """
    chats = bool({"messagesField", "promptField"} & proposal.fields.keys())
    spec: dict[str, Any] = {
        "task": proposal.task.value,
        "model": {"name": model},
        "dataset": {"files": sample.addresses, "format": sample.format.value, **proposal.fields, "testPercent": 10},
        "training": {"epochs": TASKS[proposal.task].epochs},
    }
    if chats and templated is False:
        spec["dataset"][_TEMPLATE] = {"name": "ChatML"}
    if proposal.prompt:
        spec["sample"] = {"prompts": [proposal.prompt[:_LONGEST_PROMPT]]}
    head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec}
    lines = [
        f"# {one_line(sample.title)}: {one_line(proposal.reason)}.",  # a line end would leave the comment
        "# Check it: lmft validate FILE. Run it here: lmft run FILE; on a cluster, which needs files at s3:// or in a",
        "# volume: kubectl apply -f FILE. Every field: docs/reference.md.",
    ]
    text = write_documents([head])
    if chats and templated is None:
        text = text.replace("\n    testPercent:", f"\n{_PERHAPS}\n    testPercent:", 1)
    return "\n".join(lines) + "\n" + text


def name_from(stem: str) -> str:
    """A run's name from a file's: lower-case letters, digits and hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return name[:40].rstrip("-") or "run"
