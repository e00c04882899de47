"""An MLflow tracking server, by its REST API 2.0 (https://mlflow.org/docs/latest/rest-api.html).

Not by MLflow's own client: that follows redirects with the body, reads answers without a limit and retries for minutes,
and what is needed of the API are six calls.
"""

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from typing_extensions import override

from lmft_job.errors import InterruptedRunError
from lmft_job.trackers.points import EVAL, TRAIN, Point, Position
from lmft_job.trackers.servers.http import call
from lmft_job.trackers.servers.keys import Keys
from lmft_job.trackers.tracker import RunCard, Tracker, TrackerError

TOKEN, USERNAME, PASSWORD = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
UID_TAG = "lmfinetune.dev/uid"
"""Tag by which an attempt finds the run that an earlier one began."""
_MOST_PARAMS, _LONGEST_PARAM = 100, 500
"""Of one call, and of a value in characters: limits of all servers since MLflow 1."""


class Mlflow(Tracker):
    """See :class:`lmft_job.trackers.tracker.Tracker`.

    Args:
        uri: of the server.
        experiment: its name.
        run: what is shown of the run.
        keys: values of the Secret, by name; asked for each call, because Secrets rotate.
    """

    most = 200
    in_folder = False

    def __init__(self, uri: str, experiment: str, run: RunCard, keys: Keys) -> None:
        self.name = f"MLflow at {uri}"
        self._url = f"{uri.rstrip('/')}/api/2.0/mlflow"
        self._experiment, self._run, self._keys = experiment, run, keys
        self._id = ""
        self._pauses = 0

    @override
    def open(self) -> Position:
        experiment = self._experiment_id()
        found = self._find(experiment)
        if found is None:
            # Created, but the answer was lost: the next try finds it.
            tags = {UID_TAG: self._run.id, **self._run.tags}
            found = _object(
                self._post(
                    "runs/create",
                    experiment_id=experiment,
                    run_name=self._run.name,
                    start_time=_milliseconds(time.time()),
                    tags=[{"key": key, "value": value} for key, value in tags.items()],
                ),
                "run",
            )
        info, data = _object(found, "info"), found.get("data") or {}
        self._id = _text(info, "run_id")
        if info.get("status") != "RUNNING":
            self._post("runs/update", run_id=self._id, status="RUNNING")
        self._send_params({_text(param, "key") for param in _list(data, "params")})
        last = {_text(metric, "key"): _step(metric) for metric in _list(data, "metrics")}
        return Position(_last(last, TRAIN), _last(last, EVAL))

    @override
    def send(self, points: Sequence[Point]) -> None:
        metrics = [
            {"key": name, "value": value, "timestamp": _milliseconds(point.time), "step": point.step}
            for point in points
            for name, value in point.values.items()
        ]
        if metrics:
            self._post("runs/log-batch", run_id=self._id, metrics=metrics)

    @override
    def close(self, error: BaseException | None) -> None:
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, InterruptedRunError) else "FAILED"
        self._post("runs/update", run_id=self._id, status=status, end_time=_milliseconds(time.time()))

    @override
    def pause(self) -> float:
        # A run appears at once; later a request every ten seconds is enough.
        self._pauses += 1
        return min(10.0, float(self._pauses))

    def _experiment_id(self) -> str:
        named = quote(self._experiment, safe="")
        try:
            answer = self._call("GET", f"experiments/get-by-name?experiment_name={named}")
            return _text(_object(answer, "experiment"), "experiment_id")
        except TrackerError as error:
            if not re.match(r"the server answered 404\b", str(error)):
                raise
        return _text(self._post("experiments/create", name=self._experiment), "experiment_id")

    def _find(self, experiment: str) -> dict[str, Any] | None:
        wanted = f"tags.`{UID_TAG}` = '{self._run.id}'"
        runs = _list(self._post("runs/search", experiment_ids=[experiment], filter=wanted, max_results=1), "runs")
        return runs[0] if runs else None

    def _send_params(self, there: set[str]) -> None:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self._run.params.items()}
        missing = [{"key": key, "value": text[:_LONGEST_PARAM]} for key, text in texts.items() if key not in there]
        for at in range(0, len(missing), _MOST_PARAMS):
            self._post("runs/log-batch", run_id=self._id, params=missing[at : at + _MOST_PARAMS])

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return call(method, f"{self._url}/{path}", authorization(self._keys()), body)


def authorization(keys: Mapping[str, str]) -> dict[str, str]:
    """The header of a token, or else of a user and password; empty without keys."""
    if token := keys.get(TOKEN, "").strip():
        return {"Authorization": f"Bearer {token}"}
    user, password = keys.get(USERNAME, "").strip(), keys.get(PASSWORD, "").strip()
    if user:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _last(steps: Mapping[str, int], prefix: str) -> int:
    return max((step for name, step in steps.items() if name.startswith(prefix)), default=-1)


_UNEXPECTED = "the answer is not one of MLflow's"


def _object(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = answer.get(name)
    if not isinstance(found, dict):
        raise TrackerError(_UNEXPECTED)
    return found


def _list(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = answer.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise TrackerError(_UNEXPECTED)
    return found


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str):
        raise TrackerError(_UNEXPECTED)
    return found


def _step(metric: Mapping[str, Any]) -> int:
    try:
        return int(metric.get("step", 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise TrackerError(_UNEXPECTED) from error
