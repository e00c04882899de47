"""Follows one run through lost connections, expired watches and restarts of the API server."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from lmft.cluster.connection import ANSWER_SECONDS, Connection, Stop
from lmft.cluster.requests import Request
from lmft.errors import NotFound, Refused, Unreachable
from lmft.runs import Run

WATCH_SECONDS = 60
PAUSE_SECONDS = 2.0
PATIENCE, FIRST_PATIENCE = 30, 3
"""Tries in a row without a response before giving up: if the server has responded before, and if it never has."""
_GONE = 410
_LONGEST_EVENT = 16 << 20
"""Bytes: far more than the API server stores of one object."""


def follow(
    connection: Connection,
    namespace: str,
    name: str,
    *,
    uid: str = "",
    say: Callable[[str], None],
    until: float | None = None,
    stop: Stop | None = None,
) -> Iterator[Run]:
    """The run now and after every change, until it has ended.

    Args:
        uid: of the run that is meant; empty for whichever has the name now.
        say: gets a sentence when the connection is lost.
        until: time.monotonic() at which to stop.

    Raises:
        NotFound: there is no such run, or it was deleted meanwhile.
        Unreachable: no response for :data:`PATIENCE` tries in a row.
    """
    failures, answered = 0, False
    while not _over(until, stop):
        began = time.monotonic()
        try:
            run = _read(connection, namespace, name, uid)
            answered, uid = True, run.uid
            yield run
            if run.ended:
                return
            for manifest in _changes(connection, run, until, stop):
                failures = 0
                run = _same(Run.from_manifest(manifest), uid)
                yield run
                if run.ended:
                    return
            # The watch timed out as requested or expired, which is no failure; but a proxy may end every watch at once.
            failures = 0
        except Unreachable as error:
            if stop is not None and stop.wanted:
                return
            failures += 1
            if failures >= (PATIENCE if answered else FIRST_PATIENCE):
                raise Unreachable(f"{error} The run does not need it for training; watch again later.") from error
            if failures == 1:
                say(f"{error} Retrying every {PAUSE_SECONDS:.0f} s.")
            began = time.monotonic()
        _pause(PAUSE_SECONDS - (time.monotonic() - began), until)


def _read(connection: Connection, namespace: str, name: str, uid: str) -> Run:
    try:
        found = connection.call(Request("get", namespace, name))
    except NotFound as error:
        raise (_deleted(namespace, name) if uid else error) from error
    return _same(Run.from_manifest(found), uid)


def _same(run: Run, uid: str) -> Run:
    if uid and run.uid != uid:
        raise NotFound(f"the run {run.namespace}/{run.name} was deleted; there is another one of its name", 404)
    return run


def _deleted(namespace: str, name: str) -> NotFound:
    return NotFound(f"the run {namespace}/{name} was deleted", 404)


def _changes(connection: Connection, run: Run, until: float | None, stop: Stop | None) -> Iterator[dict[str, Any]]:
    """What the run becomes, until the watch ends."""
    left = WATCH_SECONDS if until is None else max(1, min(WATCH_SECONDS, int(until - time.monotonic()) + 1))
    query = {
        "watch": "true",
        "fieldSelector": f"metadata.name={run.name}",
        "resourceVersion": run.resource_version,
        "timeoutSeconds": left,
    }
    request = Request("watch", run.namespace)
    for line in _lines(connection, request, query, left + ANSWER_SECONDS, stop):
        event = _event(line)
        if event is None:
            raise Unreachable(f"the API server at {connection.server} sends what is no event of a watch.")
        kind, found = event
        if kind == "DELETED":
            raise _deleted(run.namespace, run.name)
        if kind == "ERROR" and found.get("code") == _GONE:
            return  # the version from which to watch is too old: the run is read again
        if kind == "ERROR":
            raise Unreachable(f"the API server ended the watch: {found.get('message') or found.get('reason')}.")
        if kind in ("ADDED", "MODIFIED"):
            yield found


def _lines(
    connection: Connection, request: Request, query: dict[str, Any], seconds: float, stop: Stop | None
) -> Iterator[bytes]:
    try:
        yield from connection.stream(request, query, seconds, _LONGEST_EVENT, stop)
    except Refused as error:
        if error.status != _GONE:  # some versions of the API server say it so, others by an event
            raise


def _event(line: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        event = json.loads(line)
        kind, found = event["type"], event["object"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (kind, found) if isinstance(kind, str) and isinstance(found, dict) else None


def _over(until: float | None, stop: Stop | None) -> bool:
    return (until is not None and time.monotonic() >= until) or (stop is not None and stop.wanted)


def _pause(seconds: float, until: float | None) -> None:
    left = seconds if until is None else min(seconds, until - time.monotonic())
    if left > 0:
        time.sleep(left)
