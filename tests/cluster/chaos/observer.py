"""Looks at the runs again and again while faults come down on them, and keeps what it sees."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from cluster.chaos.history import RUN, RunHistory, live_attempts, number_of
from cluster.chaos.storage import AWAY, Folder, complete_checkpoints
from cluster.node.node import Team
from cluster.node.release import s3_client

Json = dict[str, Any]
_STEP = re.compile(r"epoch \d+/\d+ +([\d,]+)/|saved +checkpoint (\d+)|step ([\d,]+) +perplexity")
_RESUMED = re.compile(r"resumed from step (\d+)")
KINDS = ("lmft", "jobs", "pods")
DISTURBED = "disturbed-"
"""How the names of the runs begin that are looked at; others in their namespace are left alone."""


class Observer:
    """A thread that samples the cluster and storage, each as long as it answers.

    Args:
        team: the namespace of the runs.
        every: steps between two checkpoints of every run.
        margin: how long past a pod's grace period the operator waits for it, seconds.
        log: what a pod has printed, by its name.
        pause: seconds between two samples.
    """

    def __init__(self, team: Team, every: int, margin: float, log: Callable[[str], str], pause: float) -> None:
        self.histories: dict[str, RunHistory] = {}
        self.bodies: dict[str, Json] = {}
        self.jobs: dict[str, list[Json]] = {}
        self.pods: list[Json] = []
        self.samples = {"cluster": 0, "storage": 0}
        self.failure: BaseException | None = None
        self._team, self._every, self._margin, self._log, self._pause = team, every, margin, log, pause
        self._s3 = s3_client(team.node, connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
        self._done: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def __enter__(self) -> "Observer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def targets(self) -> list[str]:
        """Pods that can be deleted: neither ended nor on their way."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods
            if pod.get("status", {}).get("phase") in ("Pending", "Running")
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def running(self) -> int:
        """How many pods run."""
        return len([pod for pod in self.pods if pod.get("status", {}).get("phase") == "Running"])

    def folder(self, run: str) -> Folder:
        """A run's folder in storage."""
        uid = self.bodies[run]["metadata"]["uid"]
        return Folder(self._s3, f"{self._team.namespace}/runs/{run}-{uid[:8]}/")

    def look(self) -> None:
        """One sample."""
        for seen in (self._look_at_cluster, self._look_at_storage):
            seen()

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self._pause):
                self.look()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread, which waits for it
            self.failure = error

    def _look_at_cluster(self) -> None:
        # Jobs before pods: a Job made after a pod ended is then not seen beside that pod as it ran.
        told = self._team.node.run(
            "kubectl", "-n", self._team.namespace, "get", ",".join(KINDS), "-o", "json", "--request-timeout=10s",
            check=False,
        )  # fmt: skip
        if told.returncode:
            return
        now = time.time()
        self.samples["cluster"] += 1
        items: dict[str, list[Json]] = {"LMFineTune": [], "Job": [], "Pod": []}
        for item in json.loads(told.stdout)["items"]:
            items[item["kind"]].append(item)
        seen: list[Json] = []
        for body in items["LMFineTune"]:
            name, uid = body["metadata"]["name"], body["metadata"]["uid"]
            if not name.startswith(DISTURBED):
                continue
            history = self.histories.setdefault(name, RunHistory(self._every))
            self.bodies[name] = body
            jobs, pods = ([one for one in items[kind] if _belongs(one, uid)] for kind in ("Job", "Pod"))
            self.jobs[name] = jobs
            seen += pods
            history.cluster_seen(live_attempts(jobs, pods, now), self._margin)
            for pod in pods:
                self._read_log(history, pod)
            self._read_status(history, body)
        self.pods = seen

    def _read_status(self, history: RunHistory, body: Json) -> None:
        status = body.get("status", {})
        progress, newest = status.get("progress", {}), status.get("attempts", [{}])[-1]
        # Progress stays in the status until the next attempt reports; times are RFC 3339, so they compare as text.
        if (
            not ended(body)
            and "step" in progress
            and "startTime" in newest
            and progress.get("lastUpdateTime", "") > newest["startTime"]
        ):
            history.reached(newest["number"], progress["step"])

    def _read_log(self, history: RunHistory, pod: Json) -> None:
        number = number_of(pod)
        for line in self._log(pod["metadata"]["name"]).splitlines():
            if match := _STEP.search(line):
                step = next(group for group in match.groups() if group)
                history.reached(number, int(step.replace(",", "")))
            elif match := _RESUMED.search(line):
                history.resumed[number] = int(match[1])
                history.reached(number, int(match[1]))

    def _look_at_storage(self) -> None:
        for name in tuple(self.bodies):
            if name in self._done:
                continue
            try:
                self._look_at_folder(name)
            except AWAY:
                return
        self.samples["storage"] += 1

    def _look_at_folder(self, name: str) -> None:
        history, folder, began = self.histories[name], self.folder(name), time.time()
        keys = folder.keys()
        found, done = complete_checkpoints(keys), "report.json" in keys
        history.storage_seen(began, found, done)
        for checkpoint in sorted(found - history.verified):
            if problem := folder.damage(checkpoint):
                history.damaged(checkpoint, problem)
            history.verified.add(checkpoint)
        if done and ended(self.bodies[name]):
            self._done.add(name)


def waits_for(body: Json) -> str:
    """What a run says it waits for, or how it ended."""
    said = next(iter(body.get("status", {}).get("conditions", [])), {})
    return f"{said.get('reason')}: {said.get('message')}"


def _belongs(item: Json, uid: str) -> bool:
    return bool(item["metadata"].get("labels", {}).get(RUN) == uid)


def ended(body: Json) -> bool:
    """Whether a run has come to its end, whatever end."""
    return bool(body.get("status", {}).get("phase") in ("Succeeded", "Failed"))
