"""Runs in a cluster: read, suspended, resumed and deleted with the user's own kubeconfig and rights."""

import json
from collections.abc import Iterator
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_job.cli.runs.listing import status_of
from lmft_job.cli.watch.follow import ANSWER_SECONDS, WatchError, connect

_LOG_SECONDS = 3600


class Cluster:
    """The runs of one namespace, or of all.

    Raises:
        WatchError: from every method: no cluster, no such run, or no right; the message says what to do.
    """

    def __init__(self, namespace: str | None, context: str | None) -> None:
        self.namespace = connect(namespace, context)
        self._api = client.CustomObjectsApi()

    def runs(self, selector: str = "", *, everywhere: bool = False) -> list[dict[str, Any]]:
        """The resources, by namespace and name."""
        where: dict[str, Any] = {"group": GROUP, "version": VERSION, "plural": PLURAL}
        options = {"label_selector": selector, "_request_timeout": ANSWER_SECONDS}
        listing = self._api.list_cluster_custom_object if everywhere else self._api.list_namespaced_custom_object
        if not everywhere:
            where["namespace"] = self.namespace
        found: list[dict[str, Any]] = self._asked(lambda: listing(**where, **options))["items"]
        return sorted(found, key=lambda run: (run["metadata"]["namespace"], run["metadata"]["name"]))

    def run(self, name: str) -> dict[str, Any]:
        """One resource."""
        found: dict[str, Any] = self._asked(
            lambda: self._api.get_namespaced_custom_object(name=name, **self._where()), name
        )
        return found

    def suspend(self, name: str, suspended: bool) -> None:
        """Set ``spec.suspend``."""
        body = {"spec": {"suspend": suspended}}
        self._asked(lambda: self._api.patch_namespaced_custom_object(name=name, body=body, **self._where()), name)

    def delete(self, name: str) -> None:
        """Delete the resource: its Jobs and pods go, what is stored stays."""
        self._asked(lambda: self._api.delete_namespaced_custom_object(name=name, **self._where()), name)

    def log(self, name: str, *, follow: bool, tail: int | None) -> Iterator[str]:
        """Lines of the newest attempt's pod."""
        attempts = status_of(self.run(name)).attempts
        if not attempts:
            raise WatchError(f"{self.namespace}/{name} has no attempt yet; see what it waits for: lmft watch {name}")
        core = client.CoreV1Api()
        job = attempts[-1].job
        pods = self._asked(
            lambda: core.list_namespaced_pod(
                self.namespace, label_selector=f"batch.kubernetes.io/job-name={job}", _request_timeout=ANSWER_SECONDS
            )
        ).items
        if not pods:
            raise WatchError(f"the pod of {job} is gone, and its log with it; look at: kubectl describe lmft {name}")
        newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
        options: dict[str, Any] = {"tail_lines": tail} if tail is not None else {}
        answer = self._asked(
            lambda: core.read_namespaced_pod_log(
                newest.metadata.name,
                self.namespace,
                container=newest.spec.containers[0].name,
                follow=follow,
                _preload_content=False,
                _request_timeout=(ANSWER_SECONDS, _LOG_SECONDS),
                **options,
            )
        )
        left = b""
        for part in answer.stream():
            *lines, left = (left + part).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if left:
            yield left.decode(errors="replace")

    def _where(self) -> dict[str, Any]:
        place = {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURAL}
        return {**place, "_request_timeout": ANSWER_SECONDS}

    def _asked(self, ask: Any, name: str | None = None) -> Any:
        try:
            return ask()
        except ApiException as error:
            if error.status == 404 and name is not None:
                raise WatchError(
                    f"there is no {KIND} {name} in namespace {self.namespace}. Look with: lmft ls -A"
                ) from error
            if error.status == 404:
                raise WatchError(f"the cluster has no {PLURAL}; is LMFineTune installed in it?") from error
            said = _message(error)
            raise WatchError(f"the API server refuses: {said}") from error
        except (HTTPError, OSError) as error:
            raise WatchError(
                f"the API server does not answer: {error}. Check the cluster, KUBECONFIG and --context"
            ) from error


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
