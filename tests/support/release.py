"""Golden files: what releases left in a cluster, in storage and on the wire; fixtures/writer.py wrote them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN_FOLDERS = {"run": "release/team/runs/run-0a1b2c3d", "twin": "release/team/runs/twin-4e5f6071"}
RUNS = tuple(RUN_FOLDERS)
"""``run`` was stopped in its third attempt, after step 16 of 28; ``twin`` is the same and ended undisturbed."""


@dataclass(frozen=True)
class Release:
    """The golden files of one release."""

    name: str

    @property
    def folder(self) -> Path:
        return FIXTURES / self.name

    @property
    def storage(self) -> Path:
        """A bucket's content when ``run`` had been stopped."""
        return self.folder / "storage"

    @property
    def end(self) -> Path:
        """Report and losses of ``twin``."""
        return self.folder / "end"

    def manifest(self, name: str) -> dict[str, Any]:
        """The LMFineTune with its status."""
        body: dict[str, Any] = self._read(f"cluster/{name}.json")
        return body

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """Its Jobs, oldest first."""
        found: list[dict[str, Any]] = self._read(f"cluster/{name}-jobs.json")
        return found

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Its Pods, oldest first; all have ended."""
        found: list[dict[str, Any]] = self._read(f"cluster/{name}-pods.json")
        return found

    def run_file(self, name: str, attempt: int) -> str:
        """What the pod of an attempt finds as /etc/lmft/run.json."""
        annotations = self.jobs(name)[attempt - 1]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["lmfinetune.dev/run"])

    def termination_messages(self, name: str) -> list[str]:
        """Of its Pods, oldest first."""
        return [pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] for pod in self.pods(name)]

    def reports(self) -> list[dict[str, Any]]:
        """Bodies of the progress that the pods reported, oldest first."""
        found: list[dict[str, Any]] = self._read("wire/progress.json")
        return found

    def in_storage(self, name: str) -> Path:
        """The one file of that name below ``run``'s folder or among the prepared data, such as ``before.json``."""
        folders = (self.storage / RUN_FOLDERS["run"], self.storage / "release/team/datasets")
        [found] = [path for folder in folders for path in folder.rglob(Path(name).name) if path.match(name)]
        return found

    def _read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


RELEASES = (Release("release-0.1"), Release("2026-11-27"))
FIRST = RELEASES[0]
