"""LMFineTune from Python: create runs in a cluster, follow them, and read what came out.

    from lmft import Client

    client = Client(namespace="team-a")
    run = client.create("examples/quickstart.yaml")
    print(client.wait(run).results.perplexity)

Everything is done with the user's own kubeconfig and rights, or with the service account of the pod it runs in.
"""

from typing import TYPE_CHECKING, Any

from lmft.errors import (
    Conflict,
    Forbidden,
    InvalidManifest,
    LMFineTuneError,
    NoCluster,
    NotFound,
    Refused,
    ReportUnavailable,
    Rule,
    RunFailed,
    Unauthorized,
    Unreachable,
    WaitTimeout,
)
from lmft.reports import RunReport
from lmft.runs import Event, Run, Runs

if TYPE_CHECKING:
    from lmft.asynchronous import AsyncClient
    from lmft.client import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "Event",
    "Forbidden",
    "InvalidManifest",
    "LMFineTuneError",
    "NoCluster",
    "NotFound",
    "Refused",
    "ReportUnavailable",
    "Rule",
    "Run",
    "RunFailed",
    "RunReport",
    "Runs",
    "Unauthorized",
    "Unreachable",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    """The clients, once they are asked for: the library for Kubernetes takes half a second to import."""
    if name == "Client":
        from lmft.client import Client

        return Client
    if name == "AsyncClient":
        from lmft.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
