"""The manifest that ``lmft init`` writes: short, valid, and with what is worth changing in comments."""

import re
from typing import Any

import yaml

from lmft_api import GROUP, KIND, VERSION
from lmft_api.tasks import TASKS
from lmft_api.text.shown import one_line
from lmft_job.cli.init.data import Sample
from lmft_job.cli.init.proposal import Proposal

_LONGEST_PROMPT = 200


def render(name: str, model: str, sample: Sample, proposal: Proposal) -> str:
    """The manifest as YAML."""
    spec: dict[str, Any] = {
        "task": proposal.task.value,
        "model": {"name": model},
        "dataset": {"files": sample.addresses, "format": sample.format.value, **proposal.fields, "testPercent": 10},
        "training": {"epochs": TASKS[proposal.task].epochs},
    }
    if proposal.prompt:
        spec["sample"] = {"prompts": [proposal.prompt[:_LONGEST_PROMPT]]}
    head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec}
    lines = [
        f"# {one_line(sample.title)}: {one_line(proposal.reason)}.",  # a line end would leave the comment
        "# Check it: lmft validate FILE. Run it here: lmft run FILE; on a cluster, which needs files at s3:// or in a",
        "# volume: kubectl apply -f FILE. Every field: docs/reference.md.",
    ]
    return "\n".join(lines) + "\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=110)


def name_from(stem: str) -> str:
    """A run's name from a file's: lower-case letters, digits and hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return name[:40].rstrip("-") or "run"
