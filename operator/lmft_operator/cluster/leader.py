"""Leader election among several operators: the holder of a Lease decides, as in Kubernetes' own controllers.

The holder renews the Lease; another one takes it after seeing it unchanged for its whole duration, by its own clock. A
holder that could not renew it in time stops writing at once and then exits: it may have been replaced.
"""

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from lmft_api import GROUP
from lmft_operator.cluster.errors import ClusterError, ConflictError, NotFoundError
from lmft_operator.process import metrics
from lmft_operator.settings import LeaderSettings

logger = logging.getLogger(__name__)
ADDRESS = f"{GROUP}/progress-address"
"""Annotation of the Lease: where the holder receives progress reports, as ``host:port``."""
POD_NAME, POD_IP = "LMFT_POD_NAME", "LMFT_POD_IP"
"""Environment variables set by the chart. A pod's name never changes, so an operator that restarts within its pod
continues as leader at once."""

JsonDict = dict[str, Any]


class Leases(Protocol):
    """The API server's Leases; the methods raise :class:`ClusterError`."""

    async def get_lease(self, namespace: str, name: str) -> JsonDict:
        """One Lease."""

    async def create_lease(self, lease: JsonDict) -> JsonDict:
        """Create a Lease."""

    async def update_lease(self, lease: JsonDict) -> JsonDict:
        """Replace the given version of a Lease."""


class LeaseLostError(Exception):
    """The Lease was lost: another operator may be the leader by now."""


def identity() -> str:
    """Our name in a Lease: the pod's name, else a name unique to this process."""
    return os.environ.get(POD_NAME) or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def address(port: int) -> str | None:
    """Where other operators reach this one, ``host:port``; None when unknown."""
    host = os.environ.get(POD_IP)
    return None if not host else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Elector:
    """Takes the Lease when it is free, and keeps it renewed.

    Args:
        leases: access to Leases.
        settings: name, namespace and times of the Lease.
        who: holder identity of this operator.
        where: address of this operator, written into the Lease.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        leases: Leases,
        settings: LeaderSettings,
        who: str,
        where: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases, self._settings, self._who, self._where, self._clock = leases, settings, who, where, clock
        self._seen: JsonDict | None = None
        self._seen_at = self._renewed = clock()
        self._lease: JsonDict | None = None
        self.leading = asyncio.Event()
        """Set when we hold the Lease; never cleared, since losing it ends the process."""

    @property
    def read(self) -> bool:
        """Whether the Lease has been seen at least once."""
        return self._lease is not None

    @property
    def leader(self) -> str | None:
        """Address of the holder, when another operator holds the Lease and has given its address."""
        if self.leading.is_set() or self._lease is None or not _holder(self._lease):
            return None
        found = _notes(self._lease).get(ADDRESS)
        return found if isinstance(found, str) else None

    def holds(self) -> bool:
        """Whether nobody else can hold the Lease now; otherwise nothing may be written."""
        return self.leading.is_set() and self._clock() - self._renewed < self._settings.renew_seconds

    async def run(self) -> None:
        """Run until the Lease is lost.

        Raises:
            LeaseLostError: the Lease was lost.
        """
        while True:
            patience = self._settings.renew_seconds / 2
            if self.leading.is_set():
                patience = min(patience, self._renewed + self._settings.renew_seconds - self._clock())
            try:
                async with asyncio.timeout(max(patience, 0.001)):
                    await self._look()
            except (ClusterError, TimeoutError) as problem:
                logger.warning("the Lease cannot be %s: %s", "renewed" if self.leading.is_set() else "read", problem)
            if self.leading.is_set() and not self.holds():
                raise LeaseLostError(f"the Lease was not renewed for {self._settings.renew_seconds:.0f} s")
            await asyncio.sleep(self._pause())

    async def release(self) -> None:
        """Release the Lease at shutdown, so that the next leader need not wait; nothing may be written afterwards."""
        if not self.holds() or self._lease is None:
            return
        self.leading.clear()
        metrics.LEADER.set(0)
        try:
            async with asyncio.timeout(2.0):
                await self._leases.update_lease(self._wanted(self._lease, holder=""))
        except (ClusterError, TimeoutError) as problem:
            logger.warning("the Lease could not be released: %s", problem)

    def _pause(self) -> float:
        if self.leading.is_set() or self._seen is None:
            return self._settings.retry_seconds
        return min(self._settings.retry_seconds, max(0.05, self._ends() - self._clock()))

    def _ends(self) -> float:
        """When the Lease that was seen expires: by our clock, and with the duration that its holder wrote."""
        seconds: object = (self._seen or {}).get("leaseDurationSeconds")
        return self._seen_at + (seconds if isinstance(seconds, int) and seconds > 0 else self._settings.lease_seconds)

    async def _look(self) -> None:
        started = self._clock()
        try:
            self._lease = await self._leases.get_lease(str(self._settings.namespace), self._settings.name)
        except NotFoundError:
            await self._take(self._leases.create_lease, None, started)
            return
        spec = _spec(self._lease)
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock()
        holder = _holder(self._lease)
        if self.leading.is_set() and holder != self._who:
            raise LeaseLostError(f"the Lease is held by {holder or 'nobody'}")
        if holder in {"", self._who} or self._clock() >= self._ends():
            await self._take(self._leases.update_lease, self._lease, started)

    async def _take(self, write: Callable[[JsonDict], Any], before: JsonDict | None, started: float) -> None:
        try:
            self._lease = await write(self._wanted(before, self._who))
        except ConflictError:
            return  # somebody was faster; the next look shows who
        self._renewed, self._seen, self._seen_at = started, _spec(self._lease), self._clock()
        if not self.leading.is_set():
            logger.info("this operator is the leader now: it holds the Lease")
            metrics.LEADER.set(1)
            self.leading.set()

    def _wanted(self, before: JsonDict | None, holder: str) -> JsonDict:
        spec, now = dict(_spec(before or {})), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != holder:
            transitions = spec.get("leaseTransitions")
            spec["leaseTransitions"] = transitions + 1 if isinstance(transitions, int) else 0
            spec["acquireTime"] = now
        spec |= {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": int(self._settings.lease_seconds)}
        metadata: JsonDict = {"name": self._settings.name, "namespace": self._settings.namespace}
        if before is not None:
            metadata = dict(before["metadata"])
        notes = _notes({"metadata": metadata})
        notes.pop(ADDRESS, None)
        metadata["annotations"] = notes | ({ADDRESS: self._where} if self._where and holder else {})
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _spec(lease: JsonDict) -> JsonDict:
    found = lease.get("spec")
    return found if isinstance(found, dict) else {}


def _holder(lease: JsonDict) -> str:
    found = _spec(lease).get("holderIdentity")
    return found if isinstance(found, str) else ""


def _notes(lease: JsonDict) -> JsonDict:
    found = lease["metadata"].get("annotations")
    return dict(found) if isinstance(found, dict) else {}
