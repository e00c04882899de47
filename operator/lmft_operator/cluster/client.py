"""Client of the API server: plain JSON objects in and out, failures as :class:`ClusterError`.

It speaks HTTP directly, over the session library that kopf uses. The official client would add 70 MiB of generated
models to a process that otherwise takes 60, and building those models costs more than all else the operator does.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import aiohttp

from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_api.wire.run_file import RUN_LABEL, TOKEN_AUDIENCE
from lmft_operator.cluster import reading
from lmft_operator.cluster.access import Access
from lmft_operator.cluster.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidObjectError,
    NotFoundError,
    SilentError,
)
from lmft_operator.domain.facts import Key, run_facts
from lmft_operator.domain.shapes import OCCUPANT
from lmft_operator.process import metrics
from lmft_operator.settings import ApiSettings

PAGE = 10
"""Objects in a page of a list; ten stay small enough whatever they contain."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Largest response. An object has up to 1.5 MiB in the database; JSON escapes may make it six times as large."""
RUNS = f"/apis/{GROUP}/{VERSION}"
JOBS = "/apis/batch/v1"
CORE = "/api/v1"
LEASES = "/apis/coordination.k8s.io/v1"
BESIDE = {"Service": (CORE, "services"), "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies")}
"""What an attempt on several nodes has beside its Job, by kind: path and resource."""
_NO_DECISION = {"leases", "tokenreviews", "subjectaccessreviews"}
"""What may be written by an operator that does not hold the Lease: it decides nothing about a run."""
_ERRORS: dict[int, type[ClusterError]] = {
    400: InvalidObjectError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidObjectError,
}

_LISTS: dict[str, tuple[str, str, dict[str, str]]] = {
    PLURAL: (RUNS, KIND, {}),
    "jobs": (JOBS, "Job", {"labelSelector": RUN_LABEL}),
    "pods": (CORE, "Pod", {"labelSelector": RUN_LABEL}),
    "events": (CORE, "Event", {"fieldSelector": "type=Warning"}),
    "nodes": (CORE, "Node", {}),
}
"""By resource: path, kind of an item, and label or field selector."""
JsonDict = dict[str, Any]
T = TypeVar("T")


class Cluster:
    """A connection to the API server; every method raises :class:`ClusterError` or a subclass.

    Args:
        settings: time-outs, and how many connections.
        access: address and credentials.
        dated: called with the Date header of each response.
    """

    def __init__(
        self, settings: ApiSettings, access: Access, dated: Callable[[str | None], None] = lambda date: None
    ) -> None:
        self._access, self._dated = access, dated
        timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_seconds, sock_connect=settings.connect_timeout_seconds
        )
        connector = aiohttp.TCPConnector(limit=settings.connections, ssl=access.tls)
        headers = {"Accept": "application/json", "User-Agent": "lmfinetune-operator"}
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
        self.last_answer = time.monotonic()
        """When the API server last answered any request."""
        self.may_write: Callable[[], bool] = lambda: True
        """Whether this operator is the leader; checked before each write."""

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def create_job(self, job: JsonDict) -> JsonDict:
        """Create a Job; :class:`ConflictError` when one of that name exists."""
        return await self._call("POST", f"{JOBS}/namespaces/{job['metadata']['namespace']}/jobs", "jobs", body=job)

    async def get_job(self, namespace: str, name: str) -> JsonDict:
        """One Job."""
        return await self._call("GET", f"{JOBS}/namespaces/{namespace}/jobs/{name}", "jobs")

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Delete one Job and its pods, the pods first; the UID makes sure that it is still the Job that was meant.

        Deleting the Job would delete its pods too, but somebody else's finalizer may keep the Job, and so its pods.
        """
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        await self._call("DELETE", f"{JOBS}/namespaces/{namespace}/jobs/{name}", "jobs", body=body)

    async def create_beside(self, body: JsonDict) -> JsonDict:
        """Create a Service or NetworkPolicy; :class:`ConflictError` when one of that name exists."""
        path, resource = BESIDE[body["kind"]]
        where = f"{path}/namespaces/{body['metadata']['namespace']}/{resource}"
        return await self._call("POST", where, resource, body=body)

    async def get_beside(self, kind: str, namespace: str, name: str) -> JsonDict:
        """One Service or NetworkPolicy."""
        path, resource = BESIDE[kind]
        return await self._call("GET", f"{path}/namespaces/{namespace}/{resource}/{name}", resource)

    async def delete_beside(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete one Service or NetworkPolicy; the UID makes sure that it is still the one that was meant."""
        path, resource = BESIDE[kind]
        body = {"preconditions": {"uid": uid}}
        await self._call("DELETE", f"{path}/namespaces/{namespace}/{resource}/{name}", resource, body=body)

    async def get_run(self, key: Key) -> JsonDict:
        """One LMFineTune."""
        return await self._call("GET", f"{RUNS}/namespaces/{key.namespace}/{PLURAL}/{key.name}", PLURAL)

    async def has_run(self, key: Key, uid: str) -> bool:
        """Whether there is this LMFineTune, and not another one of its name."""
        try:
            found = await self.get_run(key)
        except NotFoundError:
            return False
        return run_facts(found).uid == uid

    async def patch_status(self, key: Key, version: str, patch: JsonDict) -> JsonDict:
        """Merge-patch the status of one version of a run; :class:`ConflictError` when another version is there."""
        return await self._call(
            "PATCH",
            f"{RUNS}/namespaces/{key.namespace}/{PLURAL}/{key.name}/status",
            PLURAL,
            body={"metadata": {"resourceVersion": version}, "status": patch},
            content="application/merge-patch+json",
        )

    async def delete_run(self, key: Key, uid: str) -> None:
        """Delete a run; its Jobs and pods are garbage-collected."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._call("DELETE", f"{RUNS}/namespaces/{key.namespace}/{PLURAL}/{key.name}", PLURAL, body=body)

    async def post_event(self, namespace: str, event: JsonDict) -> None:
        """Post an Event."""
        await self._call("POST", f"{CORE}/namespaces/{namespace}/events", "events", body=event)

    async def review_token(self, token: str, audience: str | None = TOKEN_AUDIENCE) -> JsonDict:
        """Status of a TokenReview of a token for an audience; None: the API server's own audience."""
        spec = {"token": token} | ({"audiences": [audience]} if audience else {})
        return await self._review("authentication.k8s.io", "TokenReview", spec)

    async def review_access(self, subject: JsonDict, path: str) -> JsonDict:
        """Status of a SubjectAccessReview: whether a subject (user, uid, groups, extra) may get a path."""
        spec = subject | {"nonResourceAttributes": {"path": path, "verb": "get"}}
        return await self._review("authorization.k8s.io", "SubjectAccessReview", spec)

    async def _review(self, group: str, kind: str, spec: JsonDict) -> JsonDict:
        resource = f"{kind.lower()}s"
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        answer = await self._call("POST", f"/apis/{group}/v1/{resource}", resource, body=body)
        found = answer.get("status")
        return found if isinstance(found, dict) else {}

    async def get_lease(self, namespace: str, name: str) -> JsonDict:
        """One Lease."""
        return await self._call("GET", f"{LEASES}/namespaces/{namespace}/leases/{name}", "leases")

    async def create_lease(self, lease: JsonDict) -> JsonDict:
        """Create a Lease; :class:`ConflictError` when it exists."""
        namespace = lease["metadata"]["namespace"]
        return await self._call("POST", f"{LEASES}/namespaces/{namespace}/leases", "leases", body=lease)

    async def update_lease(self, lease: JsonDict) -> JsonDict:
        """Replace one version of a Lease; :class:`ConflictError` when another version is there."""
        metadata = lease["metadata"]
        path = f"{LEASES}/namespaces/{metadata['namespace']}/leases/{metadata['name']}"
        return await self._call("PUT", path, "leases", body=lease)

    async def serves_runs(self) -> bool:
        """Whether the API server serves the LMFineTune resource yet."""
        try:
            answer = await self._call("GET", RUNS, "apis")
        except NotFoundError:
            return False
        return any(found.get("name") == PLURAL for found in answer.get("resources") or ())

    async def version(self, kind: str, namespace: str | None) -> int:
        """Current resourceVersion of the list of all runs, Jobs or Pods."""
        async for _, version in self.pages(kind, namespace, limit=1):
            return version
        return 0

    async def occupants(self, node: str) -> AsyncIterator[list[JsonDict]]:
        """The pods of anybody's that take room on a node, page by page."""
        query = {"fieldSelector": f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"}
        async for items, _ in self._pages(f"{CORE}/pods", "pods", OCCUPANT, query, PAGE):
            yield items

    async def pages(
        self, kind: str, namespace: str | None, limit: int = PAGE
    ) -> AsyncIterator[tuple[list[JsonDict], int]]:
        """All runs (``lmfinetunes``), our ``jobs`` or ``pods``, all warning ``events`` or all ``nodes``, page by page.

        Yields each page with the list's resourceVersion.

        Objects come in their shapes (:mod:`shapes`). A page of ten large ones would be megabytes: after one, they are
        requested one by one, until they are small again (:class:`reading.PageSize`).
        """
        base, singular, query = _LISTS[kind]
        path = f"{base}/namespaces/{namespace}/{kind}" if namespace else f"{base}/{kind}"
        async for page in self._pages(path, kind, singular, query, limit):
            yield page

    async def _pages(
        self, path: str, kind: str, singular: str, query: Mapping[str, str], limit: int
    ) -> AsyncIterator[tuple[list[JsonDict], int]]:
        query, size = dict(query), reading.PageSize(limit)
        while True:
            most = MAX_ANSWER_BYTES if size.single else reading.MAX_PAGE_BYTES
            data = await self._send("GET", path, kind, query=query | {"limit": str(size.limit)}, most=most)
            text = data.decode("utf-8", "replace") if data is not None else ""
            if data is None and size.single:
                raise ClusterError(200, f"GET {path}: one object is larger than {MAX_ANSWER_BYTES} bytes")
            whole = reading.fits_page(text)
            if data is None or not (size.single or whole):
                size.refused()
                continue
            read = partial(reading.read_list, text, singular, whole=whole)
            page = _understood(read, f"GET {path}")
            yield page.items, page.version
            if not page.following:
                return
            query["continue"] = page.following
            size.taken(len(text), page.whole)

    async def _call(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        body: JsonDict | None = None,
        content: str = "application/json",
    ) -> JsonDict:
        data = await self._send(method, path, resource, body=body, content=content)
        return _understood(lambda: reading.read_object(data or b""), f"{method} {path}")

    async def _send(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        body: JsonDict | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        most: int = MAX_ANSWER_BYTES,
    ) -> bytes | None:
        """Body of a successful response; None when it is larger than ``most`` bytes, and then the rest is not read."""
        if method != "GET" and resource not in _NO_DECISION and not self.may_write():
            raise ClusterError(0, f"{method} {path}: not sent: another operator may be the leader by now")
        status = 0
        data: bytes | None = None
        headers = {"Content-Type": content} if body is not None else {}
        if token := self._access.token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with self._session.request(
                method,
                self._access.server + path,
                params=query,
                data=json.dumps(body, separators=(",", ":")).encode() if body is not None else None,
                headers=headers,
            ) as answer:
                self._dated(answer.headers.get("Date"))
                status, data = answer.status, await _read(answer, most)
        except aiohttp.ServerTimeoutError as problem:  # of the connection
            raise ClusterError(0, f"{method} {path}: no connection to the API server in time") from problem
        except TimeoutError as problem:
            raise SilentError(0, f"{method} {path}: the API server has not answered in time") from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise ClusterError(0, f"{method} {path}: {type(problem).__name__} {problem}".rstrip()) from problem
        finally:
            metrics.REQUESTS.labels(method, resource, str(status)).inc()
        self.last_answer = time.monotonic()
        if status >= 400:
            raise _ERRORS.get(status, ClusterError)(status, f"{method} {path}: {status} {_message(data or b'')}")
        return data


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes | None:
    """A body of at most ``most`` bytes; None when it is larger, and then the rest is not read."""
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > most:
            answer.close()
            return None
    return bytes(data)


def _understood(read: Callable[[], T], what: str) -> T:
    try:
        return read()
    except reading.UnreadableError as problem:
        raise ClusterError(200, f"{what}: the answer is not from an API server: {problem}") from problem


def _message(data: bytes) -> str:
    try:
        return str(reading.read_object(data[:65536]).get("message", ""))[:2000]
    except reading.UnreadableError:
        return data[:200].decode(errors="replace")
