"""The connection to the API server: with the user's kubeconfig, or the service account of the pod that this runs in."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from lmft.cluster.lines import split_lines
from lmft.cluster.requests import Request, error_of
from lmft.errors import LMFineTuneError, NoCluster, Unreachable
from lmft_api import __version__

ANSWER_SECONDS = 10
"""How long to wait for a connection or a response; after that the connection counts as lost."""
_NAMESPACE_OF_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PATCH = "application/merge-patch+json"
_CHUNK = 1 << 16
_CONNECTIONS = 64
"""That are kept; more are made and closed again."""
_NO_ANSWER = "does not answer as an API server does; is it the right address?"


class Stop:
    """Ends streams from another thread."""

    def __init__(self) -> None:
        self.wanted = False
        self._answer: Any = None

    def set(self) -> None:
        """End the stream that is open, and those that would follow."""
        self.wanted = True
        answer = self._answer
        if answer is not None:
            try:
                answer.shutdown()  # a read in another thread returns
            except (AttributeError, ValueError, RuntimeError, OSError):
                return  # it has ended by itself; or urllib3 is older than 2.3, and it ends with its time

    def opened(self, answer: Any) -> None:
        """This is the one that is open; None for none."""
        self._answer = answer
        if self.wanted and answer is not None:
            self.set()


class Connection:
    """An API server, and the namespace that is meant.

    Raises:
        LMFineTuneError: from every method; Unreachable is worth another try.
    """

    def __init__(self, namespace: str | None, context: str | None, kubeconfig: str | Path | None) -> None:
        try:
            configuration, own = _configuration(context, kubeconfig)
        except (ConfigException, YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            why = str(error).rstrip(".") or type(error).__name__
            raise NoCluster(f"no cluster to talk to: {why}. Set KUBECONFIG or choose a context.") from error
        configuration.retries = False  # the library would retry silently
        self.namespace = namespace or own or "default"
        self.server: str = configuration.host
        self._api = client.ApiClient(configuration)

    def close(self) -> None:
        """Close what is open."""
        self._api.rest_client.pool_manager.clear()

    def call(self, request: Request, query: Mapping[str, Any] | None = None, body: Any = None) -> dict[str, Any]:
        """The answer as plain data."""
        answer = self._send(request, query, body, ANSWER_SECONDS)
        try:
            found = json.loads(answer.data)
        except (HTTPError, OSError) as error:
            raise self._lost(error) from error
        except (ValueError, RecursionError) as error:
            raise Unreachable(f"{self.server} {_NO_ANSWER}") from error
        if not isinstance(found, dict):
            raise Unreachable(f"{self.server} {_NO_ANSWER}")
        return found

    def stream(
        self, request: Request, query: Mapping[str, Any], seconds: float, longest: int, stop: Stop | None = None
    ) -> Iterator[bytes]:
        """Lines of the answer as they come, until the server ends it.

        Args:
            seconds: without a byte, after which the connection counts as lost.
            longest: bytes of a line; longer ones come in pieces.
        """
        answer = self._send(request, query, None, seconds)
        if stop is not None:
            stop.opened(answer)
        try:
            yield from split_lines(self._parts(answer), longest)
        finally:
            if stop is not None:
                stop.opened(None)
            answer.close()

    def _parts(self, answer: Any) -> Iterable[bytes]:
        try:
            yield from answer.stream(_CHUNK)
        except (HTTPError, OSError) as error:
            raise self._lost(error) from error

    def _send(self, request: Request, query: Mapping[str, Any] | None, body: Any, seconds: float) -> Any:
        headers = {"Accept": "application/json", "User-Agent": f"lmfinetune/{__version__}"}
        if body is not None:
            headers["Content-Type"] = _PATCH if request.verb == "patch" else "application/json"
        try:
            self._api.update_params_for_auth(headers, [], ["BearerToken"])
            # Below ApiClient.call_api, which cannot tell of an answer that has no text.
            return self._api.rest_client.request(
                request.method,
                self.server + request.path,
                query_params=list((query or {}).items()),
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=(ANSWER_SECONDS, seconds),
            )
        except ApiException as error:
            raise self._refused(request, error) from error
        except (HTTPError, OSError) as error:
            raise self._lost(error) from error

    def _refused(self, request: Request, error: ApiException) -> LMFineTuneError:
        body = error.body
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        return error_of(request, error.status or 0, str(error.reason or ""), text, self.server)

    def _lost(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"the API server at {self.server} does not answer: {error}. Check the cluster, KUBECONFIG and the context"
        )


def _configuration(context: str | None, kubeconfig: str | Path | None) -> tuple[Any, str | None]:
    """How to reach the API server, and the namespace that goes with it."""
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = _CONNECTIONS
    file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
    default = config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    chosen_here = file is not None or context is not None or Path(default).expanduser().exists()
    if not chosen_here and "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=configuration)
        return configuration, _NAMESPACE_OF_POD.read_text().strip() if _NAMESPACE_OF_POD.exists() else None
    config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    contexts, active = config.list_kube_config_contexts(config_file=file)
    chosen = active if context is None else next(entry for entry in contexts if entry["name"] == context)
    return configuration, chosen["context"].get("namespace")
