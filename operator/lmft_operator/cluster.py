"""The only module that talks to the API server: plain JSON objects in and out, errors in the operator's words.

It goes through the official client's transport and credentials, without its generated models: building those for each
answer would cost more than all else the operator does.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client import ApiException

from lmft_api import GROUP, PLURAL, VERSION
from lmft_api.run import RUN_LABEL, TOKEN_AUDIENCE
from lmft_operator import metrics
from lmft_operator.errors import ClusterError, ConflictError, ForbiddenError, InvalidObjectError, NotFoundError
from lmft_operator.facts import Key
from lmft_operator.settings import ApiSettings

PAGE = 500
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

    def __init__(self, api: client.ApiClient, settings: ApiSettings) -> None:
        self._api = api
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_seconds, sock_connect=settings.connect_timeout_seconds
        )
        self.last_answer = time.monotonic()
        """When the API server last answered anything at all."""

    @classmethod
    async def connect(cls, settings: ApiSettings) -> "Cluster":
        """With the pod's service account, else with KUBECONFIG or ~/.kube/config."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = settings.connections
        api = client.ApiClient(configuration)
        api.user_agent = "lmfinetune-operator"
        return cls(api, settings)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

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
        status = 0
        try:
            answer = await self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=self._timeout,
            )
            status, data = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError, ApiException) as problem:
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
