"""Renders the chart with the Helm binaries that tests/cluster/local pins; see charts/chart.mk."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/lmfinetune"
FULL = CHART / "ci/full-values.yaml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = Path(os.environ.get("LMFT_CLUSTER_BIN") or CACHE / "lmft-cluster")
HELMS = ("helm", "helm3")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """Objects of one rendering."""

    objects: list[Manifest]

    def all(self, kind: str) -> list[Manifest]:
        """Objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """The only object of a kind, or of a kind and name."""
        (found,) = [item for item in self.all(kind) if name in {None, item["metadata"]["name"]}]
        return found

    @property
    def config(self) -> str:
        """The operator's settings file."""
        (text,) = [item["data"]["config.yaml"] for item in self.all("ConfigMap") if "config.yaml" in item["data"]]
        return str(text)

    @property
    def pod(self) -> Manifest:
        """The operator's pod template."""
        template: Manifest = self.one("Deployment")["spec"]["template"]
        return template


def run(helm: str, *arguments: str) -> str:
    """What a Helm says; raises RuntimeError with its complaint."""
    done = subprocess.run([BIN / helm, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout


def render(
    *arguments: str, helm: str = "helm", release: str = "lmfinetune", namespace: str = "lmft-system"
) -> Rendered:
    """The chart's objects; ``arguments`` are Helm's, such as ``--set a=b``."""
    text = run(helm, "template", release, str(CHART), "-n", namespace, "--kube-version", "1.30.0", *arguments)
    return Rendered([item for item in yaml.safe_load_all(text) if item])


def sets(*pairs: str) -> list[str]:
    """``--set`` for each pair."""
    return [word for pair in pairs for word in ("--set", pair)]
