"""The client: what can be done with runs in a cluster."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from lmft.cluster.connection import Connection, Stop
from lmft.cluster.requests import Request
from lmft.cluster.watching import follow
from lmft.errors import InvalidManifest, NotFound, Refused, RunFailed, WaitTimeout
from lmft.live import showing
from lmft.manifests import Manifest, resource_of
from lmft.reports import RunReport, read_report
from lmft.runs import Event, Run, Runs
from lmft_api import KIND
from lmft_api.manifest.validation import Problem
from lmft_api.schema.patterns import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, PATTERN_HINTS, matches

_LOG = logging.getLogger("lmft")
_PAGE = 500
_GONE = 410
_LOG_SECONDS = 3600
_LONGEST_LINE = 1 << 16


class Client:
    """Runs in a cluster, with the user's own kubeconfig and rights.

    A run is named by its name, in the client's namespace or the one given, or by a :class:`Run`: then it is the very
    one, and not another one that has the same name since.

    Args:
        namespace: default: that of the context, or of the pod that this runs in.
        context: of the kubeconfig; default: its current one.
        kubeconfig: file; default: as kubectl finds it. In a pod without one, the pod's service account is used.

    Raises:
        NoCluster: there is none to talk to. Nothing is asked of the API server yet.

    Every method raises, as far as it applies:

    - NotFound: no such run, no such namespace, or LMFineTune is not installed.
    - Forbidden: with the rule of RBAC that is missing.
    - Unauthorized: the credentials are not accepted.
    - Unreachable: no answer; worth another try.
    """

    def __init__(
        self, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> None:
        if namespace is not None:
            _check("namespace", namespace, DNS_LABEL_PATTERN)
        self._connection = Connection(namespace, context, kubeconfig)

    @property
    def namespace(self) -> str:
        """The namespace that is meant where none is given."""
        return self._connection.namespace

    def close(self) -> None:
        """Close the connections to the API server."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(
        self,
        manifest: Manifest,
        *,
        name: str | None = None,
        namespace: str | None = None,
        validate: bool = True,
        dry_run: bool = False,
    ) -> Run:
        """Create a run.

        Args:
            manifest: a file, YAML text, a resource or its spec as plain data, or an LMFineTuneSpec.
            name: in place of the manifest's.
            namespace: where the manifest names none.
            validate: look for problems before anything is sent. Without, the API server alone decides, which may be of
                a later release and know more.
            dry_run: let the API server check it, and create nothing.

        Raises:
            InvalidManifest: with all problems.
            Conflict: there is a run of this name.
        """
        resource = resource_of(manifest, name, self._place(namespace), validate=validate)
        place = self._place(resource["metadata"].get("namespace") or None)
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return Run.from_manifest(self._connection.call(Request("create", place), query, resource))

    def list(self, namespace: str | None = None, *, selector: str = "", everywhere: bool = False) -> Runs:
        """Runs, by namespace and name.

        Args:
            selector: labels, such as ``lmfinetune.dev/sweep=eli5``.
            everywhere: of all namespaces.
        """
        request = Request("list", "" if everywhere else self._place(namespace))
        query: dict[str, Any] = {"limit": _PAGE} | ({"labelSelector": selector} if selector else {})
        found: list[dict[str, Any]] = []
        while True:
            try:
                page = self._connection.call(request, query)
            except Refused as error:
                if error.status != _GONE or "continue" not in query:
                    raise
                # So many runs that the list of which this is a part has expired: once more, and all at once.
                found, query = [], {key: value for key, value in query.items() if key == "labelSelector"}
                continue
            found += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                break
            query["continue"] = more
        return Runs(sorted(map(Run.from_manifest, found), key=lambda run: (run.namespace, run.name)))

    def get(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """A run as it is now."""
        place, name, uid = self._named(run, namespace)
        found = Run.from_manifest(self._connection.call(Request("get", place, name)))
        if uid and found.uid != uid:
            raise NotFound(f"the run {place}/{name} was deleted; there is another one of its name", 404)
        return found

    def watch(
        self,
        run: str | Run,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> Iterator[Run]:
        """A run now and after every change, until it has ended; bridges lost connections.

        Args:
            timeout: seconds, after which it stops without an error.
            on_lost: gets a sentence when the connection is lost; default: a warning of the logger ``lmft``.

        Raises:
            NotFound: it was deleted.
        """
        until = None if timeout is None else time.monotonic() + timeout
        return self.follow(run, namespace, until, on_lost)

    def wait(
        self,
        run: str | Run,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        check: bool = True,
        progress: bool | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> Run:
        """Wait until a run has ended, on success or failure; returns it as it ended.

        Args:
            timeout: seconds. Default: no limit.
            check: raise RunFailed if it failed, instead of returning it.
            progress: show how far it is meanwhile: a notebook's cell, a terminal's bar, or lines on standard error.
                Default: in a notebook only.

        Raises:
            RunFailed: with the reason, and what to do.
            WaitTimeout: it has not ended in time.
            NotFound: it was deleted.
        """
        until = None if timeout is None else time.monotonic() + timeout
        last = None
        with showing(progress) as show:
            for last in self.follow(run, namespace, until, on_lost):
                show(last)
        # Without any time to wait it is looked at once.
        return outcome(last or self.get(run, namespace=namespace), timeout or 0.0, check=check)

    def suspend(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """Stop a run: it saves a checkpoint and frees its GPUs; :meth:`resume` lets it continue from there."""
        return self._set_suspended(run, namespace, suspended=True)

    def resume(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """Let a suspended run continue."""
        return self._set_suspended(run, namespace, suspended=False)

    def delete(self, run: str | Run, *, namespace: str | None = None) -> None:
        """Delete a run with its Jobs and pods; what is in storage stays.

        Raises:
            Conflict: it is not the run that was given, but another one of its name.
        """
        place, name, uid = self._named(run, namespace)
        body = {"preconditions": {"uid": uid}} if uid else None
        self._connection.call(Request("delete", place, name), body=body)

    def logs(
        self, run: str | Run, *, namespace: str | None = None, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Lines of the newest attempt's first pod; they may contain anything, terminal commands too.

        Args:
            follow: until the attempt ends.
            tail: this many from the end. Default: all.

        Raises:
            NotFound: there is no attempt yet, or its pod is gone.
        """
        return self.log(run, namespace, follow=follow, tail=tail)

    def events(self, run: str | Run, *, namespace: str | None = None) -> Sequence[Event]:
        """The Events about a run, oldest first."""
        place, _, uid = self._named(run if isinstance(run, Run) else self.get(run, namespace=namespace), None)
        # By UID and not by name: Events outlive their object, and an earlier run may have had the same name.
        request = Request("list", place, resource="events", group="", version="v1")
        found = self._connection.call(request, {"fieldSelector": f"involvedObject.uid={uid}"})
        return sorted(map(Event.from_manifest, found.get("items") or ()), key=lambda event: event.time)

    def report(self, run: str | Run, *, namespace: str | None = None) -> RunReport:
        """The report of a run that has finished: every figure, with its standard error.

        It is read from S3 with the user's own AWS settings, which takes boto3; the cluster is asked for its address.

        Raises:
            ReportUnavailable: there is none yet, or it cannot be read from here.
        """
        return read_report(self.get(run, namespace=namespace))

    def _set_suspended(self, run: str | Run, namespace: str | None, *, suspended: bool) -> Run:
        place, name, uid = self._named(run, namespace)
        if uid:
            self.get(run)  # a patch has no precondition on the UID
        body = {"spec": {"suspend": suspended}}
        return Run.from_manifest(self._connection.call(Request("patch", place, name), body=body))

    def follow(
        self,
        run: str | Run,
        namespace: str | None,
        until: float | None,
        on_lost: Callable[[str], None] | None,
        stop: Stop | None = None,
    ) -> Iterator[Run]:
        """:meth:`watch` until a time of time.monotonic(), which another thread may stop."""
        place, name, uid = self._named(run, namespace)
        return follow(self._connection, place, name, uid=uid, say=on_lost or _LOG.warning, until=until, stop=stop)

    def log(
        self, run: str | Run, namespace: str | None, *, follow: bool, tail: int | None, stop: Stop | None = None
    ) -> Iterator[str]:
        """:meth:`logs` that another thread may stop."""
        found = self.get(run, namespace=namespace)
        attempts = found.status.attempts
        if not attempts:
            raise NotFound(
                f"{found.namespace}/{found.name} has no attempt yet; see what it waits for: lmft watch {found.name}",
                404,
            )
        job = attempts[-1].job
        _check("status.attempts.job", job, DNS_SUBDOMAIN_PATTERN)
        pods = Request("list", found.namespace, resource="pods", group="", version="v1")
        listed = (
            self._connection.call(pods, {"labelSelector": f"batch.kubernetes.io/job-name={job}"}).get("items") or []
        )
        if not listed:
            raise NotFound(
                f"the pod of {job} is gone, and its log with it; look at: kubectl describe lmft {found.name}", 404
            )
        newest = max(listed, key=_rank)
        log = Request("get", found.namespace, newest["metadata"]["name"], "pods", "", "v1", "log")
        query: dict[str, Any] = {"container": newest["spec"]["containers"][0]["name"]}
        query |= {"follow": "true"} if follow else {}
        query |= {"tailLines": tail} if tail is not None else {}
        for line in self._connection.stream(log, query, _LOG_SECONDS, _LONGEST_LINE, stop):
            yield line.decode(errors="replace")

    def _place(self, namespace: str | None) -> str:
        if namespace is None:
            return self.namespace
        _check("namespace", namespace, DNS_LABEL_PATTERN)
        return namespace

    def _named(self, run: str | Run, namespace: str | None) -> tuple[str, str, str]:
        """Namespace, name and UID; no UID where any of this name is meant."""
        if isinstance(run, Run):
            return run.namespace, run.name, run.uid
        _check("name", run, DNS_SUBDOMAIN_PATTERN)
        return self._place(namespace), run, ""


def outcome(run: Run, seconds: float, *, check: bool) -> Run:
    """What waiting for a run comes to; see :meth:`Client.wait`."""
    if not run.ended:
        raise WaitTimeout(run, seconds)
    if check and not run.succeeded:
        raise RunFailed(run)
    return run


def _rank(pod: dict[str, Any]) -> tuple[bool, str, str]:
    """Of several nodes the first one's; of pods one after the other the newest."""
    metadata = pod["metadata"]
    index = (metadata.get("annotations") or {}).get("batch.kubernetes.io/job-completion-index", "0")
    return index == "0", str(metadata.get("creationTimestamp") or ""), str(metadata["name"])


def _check(field: str, value: str, pattern: str) -> None:
    """Names become parts of an address: one that cannot exist must not reach another place."""
    if not isinstance(value, str) or not matches(pattern, value):
        hint = PATTERN_HINTS[pattern]
        raise InvalidManifest(f"{KIND} {str(value)[:100]!r}", [Problem(field, hint)])
