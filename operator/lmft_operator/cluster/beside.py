"""What an attempt on several nodes has beside its Job, provided and withdrawn: a Service and a NetworkPolicy."""

import logging
from collections.abc import Iterable
from typing import Any

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ConflictError, ForbiddenError, NameTakenError, NotFoundError

logger = logging.getLogger(__name__)


async def provide(cluster: Cluster, body: dict[str, Any], run_uid: str) -> None:
    """Create an object of a run, or find it there from before a crash.

    Raises:
        NameTakenError: somebody else's object has its name; it would select other pods, or none.
        ClusterError: the API server does not carry it out.
    """
    try:
        await cluster.create_beside(body)
    except ConflictError:
        kind, namespace, name = body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]
        if not _owned(await cluster.get_beside(kind, namespace, name), run_uid):
            raise NameTakenError(409, f"{kind} {name} exists and is not this run's; delete it.") from None


async def withdraw(cluster: Cluster, kinds: Iterable[str], namespace: str, name: str, run_uid: str) -> None:
    """Delete a run's objects of a name, unless gone or somebody else's; without the right to, they go with the run.

    Raises:
        ClusterError: the API server does not carry it out.
    """
    for kind in kinds:
        try:
            found = await cluster.get_beside(kind, namespace, name)
            if _owned(found, run_uid):
                await cluster.delete_beside(kind, namespace, name, str(found["metadata"]["uid"]))
        except (NotFoundError, ConflictError):
            continue
        except ForbiddenError as problem:
            logger.warning("a %s is left until its run is deleted: %s", kind, problem)


def _owned(body: dict[str, Any], run_uid: str) -> bool:
    owners = body.get("metadata", {}).get("ownerReferences") or ()
    return any(owner.get("uid") == run_uid and owner.get("controller") for owner in owners)
