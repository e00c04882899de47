"""Several operators and one Lease: at most one decides, whatever fails, and another one takes over in time."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from support.leaping import leaping

from lmft_operator.cluster.errors import ClusterError, ConflictError, NotFoundError
from lmft_operator.cluster.leader import ADDRESS, Elector, LeaseLostError, address
from lmft_operator.settings import LeaderSettings, SettingsError, parse

SETTINGS = LeaderSettings(namespace="lmft-system")


class Server:
    """Leases with versions, as an API server keeps them; some operators may be cut off from it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.writes = 0

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any]:
        if self.lease is None:
            raise NotFoundError(404, "not found")
        return deepcopy(self.lease)

    async def create_lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ConflictError(409, "exists")
        return self._keep(lease)

    async def update_lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        assert self.lease is not None
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "another version")
        return self._keep(lease)

    def _keep(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        self.lease = deepcopy(lease) | {"metadata": lease["metadata"] | {"resourceVersion": str(self.version)}}
        return deepcopy(self.lease)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


class Link:
    """One operator's way to the server: open, cut, or silent."""

    def __init__(self, server: Server) -> None:
        self.server, self.state = server, "open"

    async def _reach(self) -> None:
        if self.state == "cut":
            raise ClusterError(0, "no answer")
        if self.state == "silent":
            await asyncio.Event().wait()

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any]:
        await self._reach()
        return await self.server.get_lease(namespace, name)

    async def create_lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        await self._reach()
        return await self.server.create_lease(lease)

    async def update_lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        await self._reach()
        return await self.server.update_lease(lease)


class Candidate:
    """An operator that wants to decide."""

    def __init__(self, server: Server, name: str) -> None:
        self.link = Link(server)
        loop = asyncio.get_running_loop()
        self.elector = Elector(self.link, SETTINGS, name, f"{name}:8443", loop.time)
        self.task = asyncio.create_task(self.elector.run())

    def killed(self) -> None:
        self.task.cancel()

    @property
    def decides(self) -> bool:
        return self.elector.holds() and not self.task.done()


@leaping
async def test_one_decides_and_the_other_knows_where_it_is() -> None:
    server = Server()
    one, other = Candidate(server, "one"), Candidate(server, "other")
    await asyncio.sleep(5)
    first, second = (one, other) if one.decides else (other, one)
    assert (first.decides, second.decides, server.holder) == (True, False, first.elector._who)
    assert (first.elector.leader, second.elector.leader) == (None, f"{server.holder}:8443")
    assert second.elector.read
    await asyncio.sleep(600)
    assert (first.decides, second.decides) == (True, False)
    first.killed(), second.killed()


@leaping
async def test_a_killed_one_is_followed_within_the_leases_duration_and_a_look() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    other = Candidate(server, "other")
    for moment in (30.1, 31.9, 33.3):
        await asyncio.sleep(moment)
        one.killed()
        await asyncio.sleep(12)
        assert not other.decides
        await asyncio.sleep(5.1)
        assert other.decides
        one, other = other, Candidate(server, f"after {moment}")
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 3
    one.killed(), other.killed()


@leaping
async def test_one_that_ends_in_order_is_followed_at_the_next_look() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    other = Candidate(server, "other")
    await asyncio.sleep(5)
    one.killed()
    await one.elector.release()
    assert (server.holder, one.decides, other.elector.leader) == ("", False, "one:8443")
    await asyncio.sleep(2.1)
    assert other.decides
    other.killed()


@leaping
async def test_one_that_starts_again_under_its_name_goes_on_at_once() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(5)
    one.killed()
    again = Candidate(server, "one")
    await asyncio.sleep(0.1)
    assert again.decides
    again.killed()


@pytest.mark.parametrize("state", ["cut", "silent"])
@leaping
async def test_one_that_cannot_renew_stops_before_another_can_begin(state: str) -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    other = Candidate(server, "other")
    await asyncio.sleep(9.3)
    one.link.state = state
    stopped_at = began_at = None
    for tenth in range(300):
        await asyncio.sleep(0.1)
        assert not (one.decides and other.decides)
        stopped_at = stopped_at or (tenth if not one.elector.holds() else None)
        began_at = began_at or (tenth if other.decides else None)
    assert stopped_at is not None
    assert began_at is not None
    assert stopped_at <= 101 < stopped_at + 30 < began_at <= 171
    with pytest.raises(LeaseLostError):
        await one.task
    other.killed()


@leaping
async def test_one_that_slept_while_another_took_the_lease_ends_at_its_next_look() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(5)
    assert server.lease is not None
    server._keep(server.lease | {"spec": server.lease["spec"] | {"holderIdentity": "other"}})
    await asyncio.sleep(2.1)
    with pytest.raises(LeaseLostError, match="held by other"):
        await one.task


@leaping
async def test_a_standby_writes_nothing() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    one.killed()
    writes = server.writes
    other = Candidate(server, "other")
    await asyncio.sleep(14)
    assert server.writes == writes
    other.killed()


HOSTILE = [
    {},
    {"spec": None},
    {"spec": {"holderIdentity": "x", "leaseDurationSeconds": "long", "leaseTransitions": "many"}},
    {"spec": {"holderIdentity": "x", "leaseDurationSeconds": -5}},
    {"spec": {"holderIdentity": None}},
]


@pytest.mark.parametrize("lease", HOSTILE)
@leaping
async def test_a_lease_that_says_nothing_of_use_is_taken_after_the_usual_time(lease: dict[str, Any]) -> None:
    server = Server()
    server._keep({"metadata": {"name": "lmfinetune", "namespace": "lmft-system"}} | lease)
    one = Candidate(server, "one")
    await asyncio.sleep(17.1)
    assert one.decides
    one.killed()


@pytest.mark.parametrize(("host", "said"), [("10.0.0.7", "10.0.0.7:8443"), ("fd00::7", "[fd00::7]:8443"), ("", None)])
def test_the_address_of_an_operator_is_its_pods(host: str, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFT_POD_IP", host)
    assert address(8443) == said


@leaping
async def test_the_lease_carries_the_address() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    assert server.lease is not None
    assert server.lease["metadata"]["annotations"] == {ADDRESS: "one:8443"}
    one.killed()


@pytest.mark.parametrize("times", ["leaseSeconds: 10", "renewSeconds: 2", "retrySeconds: 12"])
def test_times_that_do_not_fit_are_refused(times: str) -> None:
    with pytest.raises(SettingsError, match="renewSeconds"):
        parse(f"leader: {{namespace: x, {times}}}")
