"""Follows a run through the API server with the user's kubeconfig."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from rich.console import Console
from rich.live import Live
from urllib3.exceptions import HTTPError

from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_api.status import ConditionStatus, LMFineTuneStatus
from lmft_api.status.reading import read_status
from lmft_api.text.shown import one_line
from lmft_job.cli.watch.view import EventLine, History, closing, line, picture

WATCH_SECONDS = 60
ANSWER_SECONDS = 10
"""How long to wait for a connection or a response; after that the connection counts as lost."""
PAUSE_SECONDS = 2.0
PATIENCE, FIRST_PATIENCE = 30, 3
"""Tries in a row without a response before giving up: if the server has responded before, and if it never has."""
LAST_EVENT_SECONDS = 3.0
"""The operator posts the final Event beside the final status: how long to wait for whichever is later."""
EVENT_PAUSE_SECONDS = 0.2
NO_EVENTS = "NoEvents"


class WatchError(Exception):
    """The run cannot be followed; the message says why and what to do."""


def follow(name: str, namespace: str | None, context: str | None, console: Console) -> bool:
    """Show a run until it ends; returns whether it succeeded.

    After a lost connection the run is read again and followed further.

    Raises:
        WatchError: no cluster, no such run, or no permission to see it.
    """
    namespace = connect(namespace, context)

    def say(words: str) -> None:
        console.print(words, soft_wrap=True, markup=False, highlight=False, style="yellow")

    history, last, seen_going = History(), "", False
    with Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else nullcontext() as live:
        for uid, status in _statuses(name, namespace, say):
            history.add(status)
            if live is not None:
                late = status.reason if status.ended and seen_going else None
                events = _events(uid, namespace) if late is None else _events_with(late, uid, namespace)
                live.update(picture(name, status, history, events, console.width), refresh=True)
            elif (text := line(name, status)) != last:
                console.print(text, soft_wrap=True, markup=False, highlight=False)
                last = text
            if status.ended:
                for left in closing(status) if live is None else ():
                    console.print(left, soft_wrap=True)
                outcome = status.succeeded
                return outcome is not None and outcome.status == ConditionStatus.TRUE
            seen_going = True
    raise WatchError(f"{KIND} {namespace}/{name} was deleted.")


def connect(namespace: str | None, context: str | None) -> str:
    """Use the user's kubeconfig from now on; returns the namespace that is meant.

    Raises:
        WatchError: there is no cluster.
    """
    try:
        config.load_kube_config(context=context)
        if namespace is None:
            contexts, active = config.list_kube_config_contexts()
            chosen = active if context is None else next(entry for entry in contexts if entry["name"] == context)
            namespace = chosen["context"].get("namespace") or "default"
    except (ConfigException, OSError) as error:
        why = str(error).rstrip(".")
        raise WatchError(f"no cluster to watch: {why}. Set KUBECONFIG or choose a --context.") from error
    quick = client.Configuration.get_default_copy()
    quick.retries = False  # the library would retry silently
    client.Configuration.set_default(quick)
    return namespace


def _statuses(name: str, namespace: str, say: Callable[[str], None]) -> Iterator[tuple[str, LMFineTuneStatus]]:
    """The run's UID, and its status now and after every change, until it is deleted; a lost connection is reported."""
    api = client.CustomObjectsApi()
    where = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    failures, answered = 0, False
    while True:
        began = time.monotonic()
        try:
            body = api.get_namespaced_custom_object(name=name, _request_timeout=ANSWER_SECONDS, **where)
            answered = True
            yield _status(body)
            stream = watch.Watch().stream(
                api.list_namespaced_custom_object,
                field_selector=f"metadata.name={name}",
                resource_version=body["metadata"]["resourceVersion"],
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(ANSWER_SECONDS, WATCH_SECONDS + ANSWER_SECONDS),
                **where,
            )
            for event in stream:
                if event["type"] == "DELETED":
                    return
                failures = 0
                yield _status(event["object"])
            # The watch timed out as requested, which is not a failure; but a proxy may end every watch at once.
            failures = 0
            time.sleep(max(0.0, PAUSE_SECONDS - (time.monotonic() - began)))
            continue
        except ApiException as error:
            if error.status == 404:
                raise WatchError(
                    f"there is no {KIND} {name} in namespace {namespace}. Look with: kubectl get lmft -A"
                ) from error
            if error.status in (401, 403):
                raise WatchError(
                    f"the API server refuses: {error.reason}. Check your permissions on {PLURAL}."
                ) from error
            why = str(error.reason)
        except (HTTPError, OSError) as error:
            why = str(error)
        failures += 1
        if failures >= (PATIENCE if answered else FIRST_PATIENCE):
            raise WatchError(
                f"the API server at {api.api_client.configuration.host} does not answer: {why}. The run does not need "
                "it for training; check the cluster, KUBECONFIG and --context, and watch again."
            )
        if failures == 1:
            say(f"The API server does not answer ({why}); retrying every {PAUSE_SECONDS:.0f} s.")
        time.sleep(PAUSE_SECONDS)


def _status(body: dict[str, Any]) -> tuple[str, LMFineTuneStatus]:
    return body["metadata"]["uid"], read_status(json.dumps(body.get("status") or {}))


def _events_with(reason: str, uid: str, namespace: str) -> list[EventLine]:
    """The Events about the run once one of them has this reason, or after a bounded time."""
    until = time.monotonic() + LAST_EVENT_SECONDS
    while True:
        events = _events(uid, namespace)
        if any(event.reason in (reason, NO_EVENTS) for event in events) or time.monotonic() > until:
            return events
        time.sleep(EVENT_PAUSE_SECONDS)


def _events(uid: str, namespace: str) -> list[EventLine]:
    """The Events about the run, oldest first; one that says so if they cannot be read, since the run matters more.

    By UID and not by name: Events outlive their object, and an earlier run may have had the same name.
    """
    try:
        found = client.CoreV1Api().list_namespaced_event(
            namespace, field_selector=f"involvedObject.uid={uid}", _request_timeout=ANSWER_SECONDS
        )
    except (ApiException, HTTPError, OSError) as error:
        why = error.reason if isinstance(error, ApiException) else error
        return [EventLine(datetime.now(UTC).isoformat(), "Warning", NO_EVENTS, f"Events cannot be read: {why}")]
    lines = [
        EventLine(
            (event.last_timestamp or event.event_time or event.metadata.creation_timestamp).isoformat(),
            event.type or "Normal",
            one_line(event.reason or ""),
            one_line(event.message or ""),
        )
        for event in found.items
    ]
    return sorted(lines, key=lambda entry: entry.time)
