"""Weights & Biases, by the requests that its own package makes (wandb 0.31 against a server of ours, and its source).

Not by that package: what it has taken is not what the server has, so that nobody can say which steps are there; it
speaks through a second program, which a server's answers can stop for the rest of a run, and sends measurements of
itself. Four requests are needed of the interface: a query and a mutation of GraphQL, which find and begin a run; lines
of the run's history by their number, so that a line sent twice is there once; and the run's end.
"""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from typing_extensions import override

from lmft_api.spec.output import WANDB_URL, Wandb
from lmft_job.errors import InterruptedRunError
from lmft_job.trackers.points import Point, Position
from lmft_job.trackers.servers.http import call
from lmft_job.trackers.servers.keys import Keys
from lmft_job.trackers.tracker import RunCard, Tracker, TrackerError

KEY = "WANDB_API_KEY"
STEP, EVALUATED = "train/global_step", "eval/global_step"
"""Metrics of the steps themselves: the one over which charts are drawn, as transformers' Trainer names it, and the
step of the last evaluation."""
_HISTORY, _SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
_FIND = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { name summaryMetrics historyLineCount historyTail }
  }
}"""
_BEGIN = """
mutation UpsertBucket(
  $name: String, $project: String, $entity: String, $displayName: String, $notes: String, $config: JSONString
) {
  upsertBucket(input: {
    name: $name, modelName: $project, entityName: $entity, displayName: $displayName, notes: $notes, config: $config
  }) {
    bucket { name project { name entity { name } } }
  }
}"""
# Metrics as the package writes them into a run's settings, by the field numbers of its MetricRecord: 1 name, 2 pattern,
# 5 number of the step's metric among these (from 1), 6 options (1 in step, 2 hidden, 3 named by the user).
_METRICS = [
    {"1": STEP, "6": [3], "7": []},
    {"1": EVALUATED, "6": [2, 3], "7": []},
    {"2": "*", "5": 1, "6": [1], "7": []},
]
_SIGN_OF_LIFE_SECONDS = 30.0
"""A run from which nothing comes for minutes is shown as crashed."""
_LONGEST_PAUSE_SECONDS = 15.0


class WeightsAndBiases(Tracker):
    """See :class:`lmft_job.trackers.tracker.Tracker`.

    Args:
        wanted: of the manifest.
        run: what is shown of the run; its id is that of the run there.
        keys: values of the Secret, by name; asked for each call, because Secrets rotate.
    """

    most = 1000
    in_folder = False

    def __init__(self, wanted: Wandb, run: RunCard, keys: Keys, project: str) -> None:
        self._url = (wanted.url or WANDB_URL).rstrip("/")
        self.name = f"Weights & Biases at {self._url}"
        self._where = {"project": wanted.project or project, "entity": wanted.entity, "name": run.id}
        self._run, self._keys = run, keys
        self._stream = ""
        self._lines = 0
        self._summary: dict[str, Any] = {}
        self._began = self._last_call = 0.0
        self._pauses = 0

    @override
    def open(self) -> Position:
        model = _object(self._ask(_FIND, self._where), "model", missing_ok=True)
        found = _object(model, "bucket", missing_ok=True)
        # Created, but the answer was lost: the next try finds it.
        answer = self._ask(_BEGIN, self._where | ({} if found else self._card()))
        project = _object(_object(_object(answer, "upsertBucket"), "bucket"), "project")
        names = (_text(_object(project, "entity"), "name"), _text(project, "name"), self._run.id)
        self._stream = f"{self._url}/files/{'/'.join(quote(name, safe='') for name in names)}/file_stream"
        self._lines = _count(found, "historyLineCount")
        self._summary = _decoded(found.get("summaryMetrics"))
        self._began = time.time() - _number(self._summary, "_runtime", 0.0)
        known = [self._summary, *map(_decoded, _list(found.get("historyTail")))]
        step, evaluated = (max(int(_number(row, name, -1)) for row in known) for name in (STEP, EVALUATED))
        if self._lines and step < 0:
            raise TrackerError(f"its run {self._run.id} has rows, but none with {STEP}; delete it there")
        return Position(step, evaluated)

    @override
    def send(self, points: Sequence[Point]) -> None:
        rows = [self._row(self._lines + index, point) for index, point in enumerate(points)]
        # The summary of all rows goes with them in one request: a later attempt reads it as what the server has.
        summary = self._summary | {name: value for row in rows for name, value in row.items()}
        self._post(
            files={
                _HISTORY: {"offset": self._lines, "content": [json.dumps(row) for row in rows]},
                _SUMMARY: {"offset": 0, "content": [json.dumps(summary)]},
            }
        )
        self._lines += len(rows)
        self._summary = summary

    @override
    def idle(self) -> None:
        if time.monotonic() - self._last_call > _SIGN_OF_LIFE_SECONDS:
            self._post()

    @override
    def close(self, error: BaseException | None) -> None:
        stopped = {"preempting": True} if isinstance(error, InterruptedRunError) else {}
        self._post(complete=True, exitcode=0 if error is None else 1, **stopped)

    @override
    def pause(self) -> float:
        # A run appears at once; later a request every 15 seconds, as the package does.
        self._pauses += 1
        return min(_LONGEST_PAUSE_SECONDS, float(self._pauses))

    def _card(self) -> dict[str, Any]:
        config = {**self._run.params, "_wandb": {"m": _METRICS}}
        return {
            "displayName": self._run.name,
            "notes": "\n".join(f"{name}: {value}" for name, value in self._run.tags.items()),
            "config": json.dumps({name: {"value": value} for name, value in config.items()}),
        }

    def _row(self, line: int, point: Point) -> dict[str, Any]:
        steps = {STEP: point.step} | ({EVALUATED: point.step} if point.evaluation else {})
        took = max(0.0, point.time - self._began)
        return {"_step": line, "_timestamp": point.time, "_runtime": took, **steps, **point.values}

    def _ask(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """The data that a query of GraphQL is answered with."""
        name = query.split("(")[0].split()[-1]
        answer = self._call(f"{self._url}/graphql", {"operationName": name, "query": query, "variables": variables})
        errors = answer.get("errors")
        if errors:
            first = errors[0] if isinstance(errors, list) else None
            message = first.get("message") if isinstance(first, dict) else None
            raise TrackerError(f"the server refuses: {message}" if isinstance(message, str) else _UNEXPECTED)
        return _object(answer, "data")

    def _post(self, **body: Any) -> None:
        self._call(self._stream, body)

    def _call(self, url: str, body: Any) -> dict[str, Any]:
        self._last_call = time.monotonic()
        return call("POST", url, authorization(self._keys()), body)


def authorization(keys: Mapping[str, str]) -> dict[str, str]:
    """The header of a key.

    Raises:
        TrackerError: there is none; no server of Weights & Biases takes anything without.
    """
    key = keys.get(KEY, "").strip()
    if not key:
        raise TrackerError(f"there is no {KEY}; set it, or name a Secret with it in wandb.credentialsSecretRef")
    return {"Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode()}


_UNEXPECTED = "the answer is not one of Weights & Biases"


def _object(answer: Mapping[str, Any], name: str, *, missing_ok: bool = False) -> dict[str, Any]:
    found = answer.get(name)
    if found is None and missing_ok:
        return {}
    if not isinstance(found, dict):
        raise TrackerError(_UNEXPECTED)
    return found


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or found in ("", ".", ".."):
        raise TrackerError(_UNEXPECTED)
    return found


def _count(answer: Mapping[str, Any], name: str) -> int:
    found = answer.get(name) or 0
    if not isinstance(found, int) or found < 0:
        raise TrackerError(_UNEXPECTED)
    return found


def _number(answer: Mapping[str, Any], name: str, without: float) -> float:
    """A finite number, or the value that stands for none."""
    found = answer.get(name, without)
    if isinstance(found, dict):
        found = found.get("last", without)  # of metrics whose summary someone has defined otherwise
    if not isinstance(found, int | float) or not abs(found) < 2**53:
        raise TrackerError(_UNEXPECTED)
    return found


def _decoded(text: Any) -> dict[str, Any]:
    """An object that comes as JSON within JSON."""
    found = _loaded(text or "{}")
    if not isinstance(found, dict):
        raise TrackerError(_UNEXPECTED)
    return found


def _list(text: Any) -> list[Any]:
    """An array that comes as JSON within JSON."""
    found = _loaded(text or "[]")
    if not isinstance(found, list):
        raise TrackerError(_UNEXPECTED)
    return found


def _loaded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise TrackerError(_UNEXPECTED) from error
