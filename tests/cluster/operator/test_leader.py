"""Two operators at once, as processes: one decides, the other takes over, and reports reach the one that decides."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import LEASES, Api, Run
from cluster.operator.reporting import Reporting, authority, report
from support.results import DONE

TAKEOVER_SECONDS = 20


class Pair:
    """Two operators that share a Lease of their own."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api, self.lease = api, f"{LEASES.format('default')}/{folder.name.replace('_', '-')}"
        settings = SETTINGS | {"leader": {"namespace": "default", "name": self.lease.rsplit("/", 1)[1]}}
        self.members = [
            Reporting.start(folder / name, api.kubeconfig, settings, name=name, patchSeconds=1) for name in ("a", "b")
        ]

    def leaders(self) -> list[Reporting]:
        return [one for one in self.members if one.operator.alive() and one.counter("lmft_leader") == 1]

    def roles(self) -> tuple[Reporting, Reporting]:
        """The one that decides, and the other."""
        (leader,) = eventually(lambda: self.leaders() if len(self.leaders()) == 1 else None, "one leader")
        return leader, next(one for one in self.members if one is not leader)

    def holder(self) -> str:
        return str(self.api.call("GET", self.lease)["spec"]["holderIdentity"])


@pytest.fixture
def pair(api: Api, tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "a").mkdir()
    authority(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    both = Pair(api, tmp_path)
    yield both
    for one in both.members:
        if one.operator.alive():
            one.operator.stop()
        assert "Traceback" not in one.operator.log.read_text()


def test_a_killed_leader_is_followed_and_no_job_is_made_twice(pair: Pair, api: Api) -> None:
    leader, standby = pair.roles()
    assert (leader.operator.ask("/readyz"), standby.operator.ask("/readyz")) == (200, 200)
    runs = [Run(api, api.namespace()).create() for _ in range(3)]
    runs[0].runs()
    runs[1].job()
    leader.operator.stop(signal.SIGKILL)
    killed = time.monotonic()
    late = Run(api, api.namespace()).create()
    runs[0].ends(said=DONE)
    late.job()
    runs[0].wait("Completed")
    assert time.monotonic() - killed < TAKEOVER_SECONDS + 5  # what the checks themselves take
    assert pair.leaders() == [standby]
    assert [len(run.jobs()) for run in (*runs, late)] == [1] * 4
    leader.operator.start()
    assert pair.leaders() == [standby]


def test_a_leader_that_ends_in_order_leaves_no_gap(pair: Pair, api: Api) -> None:
    leader, standby = pair.roles()
    leader.operator.stop()
    assert leader.operator.process is not None
    assert leader.operator.process.returncode == 0
    stopped = time.monotonic()
    Run(api, api.namespace()).create().job()
    assert time.monotonic() - stopped < 8
    assert pair.leaders() == [standby]


def test_a_leader_that_was_frozen_ends_and_decides_nothing(pair: Pair, api: Api) -> None:
    leader, standby = pair.roles()
    process = leader.operator.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    run = Run(api, api.namespace()).create()
    run.job()
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) != 0
    assert "another operator may be the leader" in leader.operator.log.read_text()
    run.ends(said=DONE)
    run.wait("Completed")
    assert len(run.jobs()) == 1
    assert pair.holder() == standby.operator.name


def test_reports_reach_the_leader_by_way_of_the_standby(pair: Pair, api: Api) -> None:
    leader, standby = pair.roles()
    run = Run(api, api.namespace()).create()
    run.runs()
    run.wait("Training")
    token = run.token()
    standby.told(token, current_step=4)
    eventually(lambda: run.status().get("progress", {}).get("step") == 4, "the step that the standby was told")
    assert standby.counter("lmft_progress_reports_total", outcome="forwarded") >= 1
    assert leader.counter("lmft_progress_reports_total", outcome="taken") >= 1
    assert standby.post("not.a.token", report()) == 401
    assert leader.operator.process is not None
    leader.operator.process.send_signal(signal.SIGKILL)
    leader.operator.process.wait(20)
    assert standby.post(token, report()) == 503
    standby.told(token, current_step=5)
    assert pair.leaders() == [standby]
