"""The only module that talks to the API server: plain JSON objects in and out, errors in the operator's words.

It speaks HTTP itself, over the session library that kopf uses. The official client would add 70 MiB of generated
models to a process that otherwise takes 60, and building its models costs more than all else the operator does.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from lmft_api import GROUP, PLURAL, VERSION
from lmft_api.run import RUN_LABEL, TOKEN_AUDIENCE
from lmft_operator import metrics
from lmft_operator.access import Access
from lmft_operator.errors import ClusterError, ConflictError, ForbiddenError, InvalidObjectError, NotFoundError
from lmft_operator.facts import Key
from lmft_operator.settings import ApiSettings

PAGE = 100
RUNS = f"/apis/{GROUP}/{VERSION}"
JOBS = "/apis/batch/v1"
CORE = "/api/v1"
_ERRORS: dict[int, type[ClusterError]] = {
    400: InvalidObjectError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidObjectError,
}

JsonDict = dict[str, Any]


class Cluster:
    """A connection to the API server; every method raises :class:`ClusterError` or one of its kinds."""

    def __init__(self, settings: ApiSettings, access: Access) -> None:
        self._access = access
        timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_seconds, sock_connect=settings.connect_timeout_seconds
        )
        connector = aiohttp.TCPConnector(limit=settings.connections, ssl=access.tls)
        headers = {"Accept": "application/json", "User-Agent": "lmfinetune-operator"}
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
        self.last_answer = time.monotonic()
        """When the API server last answered anything at all."""

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
        """Delete one Job and its pods, if it is still the one meant."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._call("DELETE", f"{JOBS}/namespaces/{namespace}/jobs/{name}", "jobs", body=body)

    async def get_run(self, key: Key) -> JsonDict:
        """One LMFineTune."""
        return await self._call("GET", f"{RUNS}/namespaces/{key.namespace}/{PLURAL}/{key.name}", PLURAL)

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
        """Delete a run; its Jobs and pods follow."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._call("DELETE", f"{RUNS}/namespaces/{key.namespace}/{PLURAL}/{key.name}", PLURAL, body=body)

    async def post_event(self, namespace: str, event: JsonDict) -> None:
        """Post an Event."""
        await self._call("POST", f"{CORE}/namespaces/{namespace}/events", "events", body=event)

    async def review_token(self, token: str) -> JsonDict:
        """Status of a TokenReview: whose token it is, if it is meant for us."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        answer = await self._call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "tokenreviews", body=body)
        found: JsonDict = answer.get("status") or {}
        return found

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[JsonDict], str]]:
        """All runs (``lmfinetunes``), or all ``jobs`` or ``pods`` of ours, in pages with the list's version."""
        base = {PLURAL: RUNS, "jobs": JOBS, "pods": CORE}[kind]
        path = f"{base}/namespaces/{namespace}/{kind}" if namespace else f"{base}/{kind}"
        query = {"limit": str(PAGE)} | ({} if kind == PLURAL else {"labelSelector": RUN_LABEL})
        while True:
            answer = await self._call("GET", path, kind, query=query)
            metadata = answer["metadata"]
            yield answer.get("items") or [], metadata["resourceVersion"]
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def _call(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        body: JsonDict | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> JsonDict:
        status, data = 0, b""
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
                status, data = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise ClusterError(0, f"{method} {path}: {type(problem).__name__} {problem}".rstrip()) from problem
        finally:
            metrics.REQUESTS.labels(method, resource, str(status)).inc()
        self.last_answer = time.monotonic()
        if status >= 400:
            raise _ERRORS.get(status, ClusterError)(status, f"{method} {path}: {status} {_message(data)}")
        parsed: JsonDict = json.loads(data)
        return parsed


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))[:2000]
    except (ValueError, AttributeError):
        return data[:200].decode(errors="replace")
