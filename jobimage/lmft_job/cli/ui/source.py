"""Where the runs of the page come from: a folder, a bucket, or a cluster."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import ValidationError

from lmft_api.figures import known
from lmft_api.status import LMFineTuneStatus
from lmft_api.wire.layout import METRICS, PAGE, REPORT, RUN_MARKER
from lmft_api.wire.report import CurvePoint, Report
from lmft_job.cli.runs.listing import Row, cluster_rows, finished_row
from lmft_job.errors import JobError
from lmft_job.storage import Store, open_store

_MOST_RUNS = 1_000
"""Newest runs of a folder or bucket whose reports are read."""


@dataclass(frozen=True)
class Run:
    """One run, as far as it is known.

    Attributes:
        report: of a finished run.
        curve: of its steps; also of a run that still trains, where its metrics can be read.
        status: of a run in a cluster.
        remark: why more is not shown, for people.
    """

    row: Row
    report: Report | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    status: LMFineTuneStatus | None = None
    remark: str = ""


class Source(Protocol):
    """Where runs are read; methods raise JobError or LMFineTuneError when the place refuses or does not answer."""

    @property
    def where(self) -> str:
        """For people."""

    def rows(self) -> list[Row]:
        """All runs, the newest first."""

    def run(self, namespace: str, name: str) -> Run | None:
        """One of them; None if there is none of that name."""


class StoredRuns:
    """The runs below an output's address: ``<namespace>/runs/<name>/``."""

    def __init__(self, address: str) -> None:
        self.where = address
        self._store = open_store(address)

    def rows(self) -> list[Row]:
        """See Source; a run whose report cannot be read says so in its row."""
        newest: dict[tuple[str, str], float] = {}
        for entry in self._store.list():
            if place := _place(entry.key):
                newest[place] = max(newest.get(place, 0.0), entry.modified)
        places = sorted(newest, key=lambda place: (-newest[place], place))[:_MOST_RUNS]
        return [_read(*place, self._folder(*place).get_bytes(REPORT)).row for place in places]

    def run(self, namespace: str, name: str) -> Run | None:
        """See Source."""
        if not _plain(namespace) or not _plain(name):
            return None
        folder = self._folder(namespace, name)
        data = folder.get_bytes(REPORT)
        if data is None and folder.get_bytes(RUN_MARKER) is None:
            return None
        found = _read(namespace, name, data)
        return Run(found.row, found.report, curve_of(folder.get_bytes(METRICS) or b""), remark=found.remark)

    def _folder(self, namespace: str, name: str) -> Store:
        return self._store.child(f"{namespace}/runs/{name}")


class ClusterRuns:
    """The runs of a cluster, read with the user's kubeconfig; reports with their own settings for storage."""

    def __init__(self, namespace: str | None, context: str | None, *, everywhere: bool) -> None:
        from lmft import Client

        self._client, self._everywhere = Client(namespace, context=context), everywhere
        self.where = "the cluster" if everywhere else f"namespace {self._client.namespace}"

    def rows(self) -> list[Row]:
        """See Source."""
        found = self._client.list(everywhere=self._everywhere)
        return cluster_rows(sorted(found, key=lambda run: run.created, reverse=True))

    def run(self, namespace: str, name: str) -> Run | None:
        """See Source."""
        if not self._everywhere and namespace != self._client.namespace:
            return None
        found = self._client.get(name, namespace=namespace)
        (row,), status = cluster_rows([found]), found.status
        address = status.results.report_uri if status.results else None
        if address is None:
            return Run(row, status=status)
        if not address.startswith("s3://"):  # a path of the pod's: here it would be some other file
            return Run(row, status=status, remark=f"The report is at {address}, on a volume of the cluster.")
        try:
            folder = open_store(address.removesuffix(f"/{PAGE}"))
            data = folder.get_bytes(REPORT)
            if data is None:
                return Run(row, status=status, remark=f"There is no {REPORT} at {address}.")
            return Run(row, Report.from_json(data), curve_of(folder.get_bytes(METRICS) or b""), status)
        except (JobError, ValidationError) as error:
            why = str(error) if isinstance(error, JobError) else "it is not a report of a run"
            return Run(row, status=status, remark=f"The report at {address} cannot be read from here: {why}")


def figures_of(status: LMFineTuneStatus) -> list[tuple[str, str, str]]:
    """(name, before, now) of each figure of a status."""
    results = status.results
    return [
        (kind.title, str(getattr(results, kind.baseline) or "–"), str(getattr(results, kind.name) or "–"))
        for kind in known(results)
    ]


def curve_of(metrics: bytes) -> list[CurvePoint]:
    """The steps of ``metrics.jsonl``, whose last line may be in the middle of being written."""
    points = []
    for line in metrics.splitlines():
        try:
            step = json.loads(line)
            loss = step["loss"]
            points.append(CurvePoint.model_validate({**step, "loss": math.nan if loss is None else loss}))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # an evaluation, half a line, or something else
    return points


def _read(namespace: str, name: str, data: bytes | None) -> Run:
    """A run by the bytes of its report, which an unfinished one does not have."""
    if data is None:
        return Run(Row(namespace, name, "", "Unfinished", "", ""))
    try:
        report = Report.from_json(data)
    except ValidationError:
        return Run(Row(namespace, name, "", "Unreadable", "", ""), remark=f"{REPORT} is not a report of a run.")
    return Run(finished_row(namespace, name, report), report)


def _place(key: str) -> tuple[str, str] | None:
    """Namespace and name, if this is a file of a run by which it is known."""
    parts = key.split("/")
    if len(parts) == 4 and parts[1] == "runs" and parts[3] in (REPORT, RUN_MARKER):
        return parts[0], parts[2]
    return None


def _plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..") and "\0" not in name


def chosen(source: Source, names: Iterable[str]) -> list[Report]:
    """The reports of the runs that are named ``namespace/name``, without those that have none."""
    found = []
    for name in names:
        namespace, _, own = name.partition("/")
        run = source.run(namespace, own)
        if run is not None and run.report is not None:
            found.append(run.report)
    return found
