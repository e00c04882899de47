"""A cluster that has IPv6 and nothing else: control plane, operator, storage and the job's side of both, in a network
of their own. No pod runs here."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import DEFINITIONS, SETTINGS, established
from cluster.operator.namespace import NoNamespaceError, ipv6_alone
from cluster.operator.plane import CLUSTER, LEASES, Api, Run, bracketed
from cluster.operator.reporting import Reporting, authority
from cluster.ports import own_control_plane
from support import s3server
from support.results import DONE

from lmft_api.generate.crd import crd
from lmft_api.wire.progress import SERVER_URL_VARIABLE, Metric, ProgressMessage, TrainerStatus
from lmft_job.observers.reporter import Endpoint
from lmft_job.storage import open_store
from lmft_operator.cluster.leader import ADDRESS


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    try:
        with ipv6_alone() as address:
            yield address
    except NoNamespaceError as problem:
        pytest.skip(f"no network with IPv6 alone can be made here: {problem}")


@pytest.fixture(scope="module")
def api(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A control plane on IPv6."""
    folder = tmp_path_factory.mktemp("ipv6") / "plane"
    environment = dict(os.environ) | own_control_plane(folder) | {"LMFT_CONTROL_PLANE_IP": address}
    before = os.environ.get("KUBECONFIG")
    subprocess.run([CLUSTER, "--control-plane", "up"], env=environment, check=True)
    try:
        api = Api(folder / "admin.conf")
        api.call("POST", DEFINITIONS, crd())
        established(api)
        yield api
    finally:
        subprocess.run([CLUSTER, "--control-plane", "down"], env=environment, check=True)
        os.environ.pop("KUBECONFIG", None)
        if before is not None:
            os.environ["KUBECONFIG"] = before


@pytest.fixture(scope="module")
def pair(api: Api, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reporting, Reporting]]:
    """The operator that decides, and one that stands by; they share a Lease and an authority."""
    folder = tmp_path_factory.mktemp("operators")
    settings = SETTINGS | {"leader": {"namespace": "default", "name": "ipv6"}}
    (folder / "a").mkdir()
    authority(folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    members = [
        Reporting.start(folder / name, api.kubeconfig, settings, name=name, host=address, patchSeconds=1)
        for name in ("a", "b")
    ]
    eventually(lambda: members[0].counter("lmft_leader") == 1, "the first one to decide")
    yield members[0], members[1]
    for member in members:
        assert not member.operator.alive() or member.operator.stop() < 10
        assert "Traceback" not in member.operator.log.read_text()


@pytest.fixture(scope="module")
def run(api: Api, pair: tuple[Reporting, Reporting]) -> Run:
    """A run whose pod is up."""
    run = Run(api, api.namespace()).create()
    run.runs()
    run.wait("Training")
    return run


def test_there_is_no_ipv4_here(address: str) -> None:
    # given the network that all of this runs in, then what follows cannot have used IPv4
    for host in ("127.0.0.1", "10.0.0.1"):
        with pytest.raises(OSError), socket.create_connection((host, 443), timeout=5):  # noqa: PT011
            pass


def test_the_operator_answers_probes_and_metrics(pair: tuple[Reporting, Reporting], address: str) -> None:
    for member in pair:
        for path in ("/healthz", "/readyz"):
            assert member.operator.ask(path) == 200
        assert "lmft_api_requests_total" in member.operator.metrics()
        # loopback too, which `kubectl port-forward` uses
        ports = (member.operator.port, member.operator.metrics_port, member.port)
        for port in ports:
            with socket.create_connection(("::1", port), timeout=5):
                pass


def test_a_run_gets_its_job_and_the_address_in_it_is_one(run: Run, pair: tuple[Reporting, Reporting], address) -> None:
    container = run.job()["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment[SERVER_URL_VARIABLE] == f"https://[{address}]:{pair[0].port}"


def test_what_the_job_reports_shows_whichever_operator_it_reaches(
    run: Run, pair: tuple[Reporting, Reporting], tmp_path: Path
) -> None:
    # given the job's own client, with the token that kubelet would have mounted
    token = tmp_path / "token"
    token.write_text(run.token())
    for member, step in zip(pair, (4, 5), strict=True):
        endpoint = Endpoint(f"https://{bracketed(member.host)}:{member.port}", member.folder / "ca.crt", token)
        metrics = [Metric(name="current_step", value=str(step)), Metric(name="total_steps", value="9")]
        status = TrainerStatus(progress_percentage=44, metrics=metrics, last_updated_time="2026-01-01T00:00:00Z")
        # when it posts to the one that decides, and to the one that hands on
        eventually(lambda to=endpoint, what=status: to.post(ProgressMessage(trainer_status=what), 5) is None, "a post")
        # then the step is in the resource
        eventually(lambda want=step: run.status().get("progress", {}).get("step") == want, f"step {step}")
    assert pair[1].counter("lmft_progress_reports_total", outcome="forwarded") >= 1


def test_the_lease_holds_an_address_that_the_other_can_use(
    api: Api, pair: tuple[Reporting, Reporting], address: str
) -> None:
    lease = api.call("GET", f"{LEASES.format('default')}/ipv6")
    assert lease["metadata"]["annotations"][ADDRESS] == f"[{address}]:{pair[0].port}"


def test_storage_on_ipv6_takes_and_gives_what_jobs_put_there(address: str, tmp_path: Path) -> None:
    if s3server.find_versitygw() is None:
        pytest.skip("versitygw is not built, and moto does not listen on IPv6")
    (tmp_path / "server").mkdir()
    with s3server.running(tmp_path / "server", host=address) as server:
        assert server.endpoint.startswith(f"http://[{address}]:")
        store = open_store(f"s3://{s3server.BUCKET}/runs", server.secret(tmp_path / "secret"))
        store.probe_write()
        assert store.put_if_absent("report.json", b"{}") is True
        assert store.put_if_absent("report.json", b"[]") is False
        assert store.get_bytes("report.json") == b"{}"


def test_a_run_ends_and_the_one_that_stood_by_takes_over(run: Run, pair: tuple[Reporting, Reporting]) -> None:
    # when the operator that decides is killed, and the job ends
    pair[0].operator.stop(signal.SIGKILL)
    run.ends(said=DONE)
    # then the other one says so
    run.wait("Completed")
    assert len(run.jobs()) == 1
