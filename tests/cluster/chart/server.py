"""An API server of one's own for the chart's tests, and the programs that talk to it."""

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from cluster.eventually import eventually

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/lmfinetune"
FULL = CHART / "ci/full-values.yaml"
CLUSTER = ROOT / "tests/cluster/local/cluster"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = Path(os.environ.get("LMFT_CLUSTER_BIN") or CACHE / "lmft-cluster")
CRD = "lmfinetunes.lmfinetune.dev"
RUN: dict[str, Any] = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "eli5"},
    "spec": {"model": {"name": "distilbert/distilgpt2"}, "dataset": {"builtin": "PythonDocs"}},
}
numbers = count(1)

Json = dict[str, Any]


@dataclass
class Server:
    """An API server, and the programs that talk to it."""

    kubeconfig: Path
    releases: list[tuple[str, str]] = field(default_factory=list)

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        """Output of kubectl or a Helm; RuntimeError with its complaint."""
        done = subprocess.run(
            [BIN / program, *arguments],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = "default") -> Json | None:
        """An object, or None."""
        text = self.run("kubectl", "get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        found: Json | None = json.loads(text) if text else None
        return found

    def there(self, kind: str, name: str, namespace: str = "default") -> Json:
        """An object that must be there."""
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind} {namespace}/{name} is not there"
        return found

    def apply(self, *objects: Json, namespace: str = "default") -> None:
        """Server-side apply."""
        text = yaml.safe_dump_all(objects)
        self.run("kubectl", "apply", "--server-side", "-n", namespace, "-f", "-", stdin=text)

    def namespace(self, *labels: str) -> str:
        """A fresh namespace."""
        name = f"chart-{next(numbers)}"
        self.run("kubectl", "create", "namespace", name)
        if labels:
            self.run("kubectl", "label", "namespace", name, *labels)
        return name

    def install(self, namespace: str, *arguments: str, helm: str = "helm", chart: Path = CHART) -> None:
        """Install or upgrade the release ``lmft`` in a namespace; it is gone when the test ends."""
        self.releases.append((helm, namespace))
        self.run(helm, "upgrade", "--install", "lmft-lmfinetune", str(chart), "-n", namespace, *arguments)

    def uninstall(self, namespace: str, helm: str = "helm") -> None:
        """Uninstall it."""
        self.run(helm, "uninstall", "lmft-lmfinetune", "-n", namespace)

    def until_definition_is_gone(self) -> None:
        """Wait for the end of its deletion.

        An API server that is asked to delete a definition while it still begins to serve it fails once ("storage is
        (re)initializing") and then, at times, waits for a change of the object.
        """
        for touched in range(12):
            try:
                self.run("kubectl", "wait", "--for=delete", f"crd/{CRD}", "--timeout=5s")
            except RuntimeError:
                with suppress(RuntimeError):  # gone just now, which the next wait sees
                    self.run("kubectl", "label", "crd", CRD, "--overwrite", f"touched={touched}")
            else:
                return
        raise AssertionError(f"the definition is not gone: {self.get('crd', CRD)}")

    def established(self) -> None:
        """Wait until the definition can be used."""

        def conditions() -> bool:
            # kubectl wait fails on a definition that has no conditions yet.
            found = self.get("crd", CRD, "")
            return any(
                (entry["type"], entry["status"]) == ("Established", "True")
                for entry in (found or {}).get("status", {}).get("conditions") or ()
            )

        eventually(conditions, "the definition is served")
