"""The Service by which the pods of an attempt on several nodes find each other: provided and withdrawn."""

import logging
from typing import Any

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ConflictError, ForbiddenError, NameTakenError, NotFoundError

logger = logging.getLogger(__name__)


async def provide(cluster: Cluster, service: dict[str, Any], run_uid: str) -> None:
    """Create a run's Service, or find it there from before a crash.

    Raises:
        NameTakenError: somebody else's Service has its name; its pods would not be ours.
        ClusterError: the API server does not carry it out.
    """
    try:
        await cluster.create_service(service)
    except ConflictError:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        if not _owned(await cluster.get_service(namespace, name), run_uid):
            raise NameTakenError(409, f"Service {name} exists and is not this run's; delete it.") from None


async def withdraw(cluster: Cluster, namespace: str, name: str, run_uid: str) -> None:
    """Delete a run's Service, unless it is gone or somebody else's; without the right to, it goes with the run.

    Raises:
        ClusterError: the API server does not carry it out.
    """
    try:
        found = await cluster.get_service(namespace, name)
        if _owned(found, run_uid):
            await cluster.delete_service(namespace, name, str(found["metadata"]["uid"]))
    except (NotFoundError, ConflictError):
        return
    except ForbiddenError as problem:
        logger.warning("a Service is left until its run is deleted: %s", problem)


def _owned(service: dict[str, Any], run_uid: str) -> bool:
    owners = service.get("metadata", {}).get("ownerReferences") or ()
    return any(owner.get("uid") == run_uid and owner.get("controller") for owner in owners)
