"""The client before a stand-in for the API server, for what a real one does not do at will; the real one is in e2e."""

import asyncio
import inspect
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support import s3server
from support.api_double import ApiServer, ended, resource, serving
from support.report_samples import demo_report

from lmft import AsyncClient, Client, InvalidManifest, NoCluster, NotFound, ReportUnavailable, RunFailed, RunReport
from lmft.asynchronous import streamed
from lmft.cluster.connection import Stop

RUNS = "/apis/lmfinetune.dev/v1alpha1/namespaces/team-a/lmfinetunes"
PODS = "/api/v1/namespaces/team-a/pods"
EVENTS = "/api/v1/namespaces/team-a/events"
POD = {
    "metadata": {"name": "eli5-1-x", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"containers": [{"name": "job"}]},
}
ATTEMPT = {"attempts": [{"number": 1, "job": "eli5-1"}]}


@pytest.fixture
def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path, monkeypatch) as server:
        yield server


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "Eli5", "a\n", "x" * 70 + "_", 5, None])
def test_a_name_that_cannot_be_reaches_no_server(name: Any, api_server: ApiServer) -> None:
    client = Client()
    for use in (client.get, client.delete, client.suspend, client.resume, client.events, client.wait):
        with pytest.raises(InvalidManifest, match="name"):
            use(name)
    with pytest.raises(InvalidManifest, match="namespace"):
        client.get("eli5", namespace="../kube-system")
    with pytest.raises(InvalidManifest, match="namespace"):
        Client("")
    assert api_server.asked == []


def test_a_long_list_comes_in_pages(api_server: ApiServer) -> None:
    pages = [
        {"items": [resource("b")], "metadata": {"continue": "more"}},
        {"items": [resource("a")], "metadata": {"continue": ""}},
    ]
    api_server.objects = Pages({RUNS: pages})

    assert [run.name for run in Client().list(selector="x=y")] == ["a", "b"]
    assert "continue=more" in api_server.asked[1][1]
    assert all("labelSelector=x%3Dy" in path and "limit=" in path for _, path, _ in api_server.asked)


class Pages(dict[str, Any]):
    """Answers of which each is given once."""

    def get(self, path: str, default: Any = None) -> Any:
        found = super().get(path, default)
        return found.pop(0) if isinstance(found, list) and found else found


def test_a_log_line_without_an_end_comes_in_pieces(api_server: ApiServer) -> None:
    api_server.objects = {
        f"{RUNS}/eli5": resource("eli5", ATTEMPT), PODS: {"items": [POD]}, f"{PODS}/eli5-1-x/log": b"x" * 200_000,
    }  # fmt: skip
    lines = list(Client().logs("eli5"))
    assert max(map(len, lines)) <= 1 << 16
    assert "".join(lines) == "x" * 200_000


def test_the_log_of_several_pods_is_the_first_ones(api_server: ApiServer) -> None:
    def pod(name: str, index: str) -> dict[str, Any]:
        annotations = {"batch.kubernetes.io/job-completion-index": index}
        return POD | {"metadata": POD["metadata"] | {"name": name, "annotations": annotations}}

    api_server.objects = {
        f"{RUNS}/eli5": resource("eli5", ATTEMPT),
        PODS: {"items": [pod("second", "1"), pod("first", "0")]},
        f"{PODS}/first/log": b"it is me\n",
    }
    assert list(Client().logs("eli5")) == ["it is me"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "has no attempt yet"),
        (ATTEMPT, "the pod of eli5-1 is gone"),
        ({"attempts": [{"number": 1, "job": "a,b=c"}]}, "job"),
    ],
)
def test_a_log_that_there_is_not_is_said_so(status: Any, said: str, api_server: ApiServer) -> None:
    api_server.objects = {f"{RUNS}/eli5": resource("eli5", status), PODS: {"items": []}}
    with pytest.raises((NotFound, InvalidManifest), match=said):
        list(Client().logs("eli5"))


def test_events_are_in_order_and_fit_for_a_terminal(api_server: ApiServer) -> None:
    api_server.objects = {
        f"{RUNS}/eli5": resource("eli5"),
        EVENTS: {"items": [
            {"lastTimestamp": "2026-01-01T00:00:02Z", "type": "Warning", "reason": "B", "message": "\x1b[2J"},
            {"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}, "reason": "A"},
        ]},
    }  # fmt: skip
    assert [(event.kind, event.reason, event.message) for event in Client().events("eli5")] == [
        ("Normal", "A", ""),
        ("Warning", "B", "[2J"),
    ]


def test_what_is_no_api_server_is_said_so(api_server: ApiServer) -> None:
    for answer in (b"<html>", b"[1]", b"[" * 100_000, b"\xff"):
        api_server.objects[RUNS] = answer
        with pytest.raises(Exception, match="does not answer as an API server does"):
            Client().list()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "clusters: 5", '{"current-context": "x"}', "\x00", "contexts: [{name: a}]\ncurrent-context: a"],
)
def test_a_kubeconfig_that_is_none_is_said_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(NoCluster, match=r"no cluster to talk to: .*Set KUBECONFIG"):
        Client(kubeconfig=tmp_path / "config")


def test_in_a_pod_its_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "secret"), ("namespace", "team-b\n"), ("ca.crt", "x")):
        (tmp_path / name).write_text(text)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("lmft.cluster.connection._NAMESPACE_OF_POD", tmp_path / "namespace")
    own = SimpleNamespace(
        load_incluster_config=lambda client_configuration: setattr(client_configuration, "host", "https://here")
    )
    monkeypatch.setattr("kubernetes.config.load_incluster_config", own.load_incluster_config)

    assert Client().namespace == "team-b"
    assert Client("team-c").namespace == "team-c"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3server.S3Server]:
    (tmp_path / "s3").mkdir()
    with s3server.running(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_report_is_read_from_storage_with_the_users_own_settings(
    api_server: ApiServer, s3: s3server.S3Server
) -> None:
    report, bucket = demo_report(), s3server.BUCKET
    s3.client().put_object(Bucket=bucket, Key="t/done/report.json", Body=report.to_json())
    s3.client().put_object(Bucket=bucket, Key="t/broken/report.json", Body=b"{}")
    for name in ("done", "broken", "absent"):
        uri = {"reportURI": f"s3://{bucket}/t/{name}/report.html"}
        api_server.objects[f"{RUNS}/{name}"] = resource(name, ended(True, "Completed", results=uri))
    api_server.objects[f"{RUNS}/going"] = resource("going")
    volume = {"reportURI": "file:///etc/passwd"}
    api_server.objects[f"{RUNS}/volume"] = resource("volume", ended(True, "Completed", results=volume))

    found = Client().report("done")

    assert isinstance(found, RunReport)
    assert found.results == report.results
    for name, said in (
        ("going", "team-a/going has no report yet; it is Pending"),
        ("broken", "is not a report of a run"),
        ("absent", r"cannot be read from here: .*NoSuchKey.*your own settings"),
        ("volume", "on a volume of the cluster"),
    ):
        with pytest.raises(ReportUnavailable, match=said):
            Client().report(name)


def test_asyncio_has_the_same_methods_with_the_same_arguments() -> None:
    def parameters(cls: type, name: str) -> list[tuple[str, Any]]:
        return [(key, value.default) for key, value in inspect.signature(getattr(cls, name)).parameters.items()]

    names = [name for name in vars(AsyncClient) if not name.startswith("_")]

    assert set(names) == {name for name in vars(Client) if not name.startswith("_")} - {"namespace", "follow", "log"}
    for name in [*names, "__init__"]:
        assert parameters(AsyncClient, name) == parameters(Client, name), name


async def test_a_run_is_used_from_asyncio(api_server: ApiServer) -> None:
    done = ended(False, "Diverged")
    api_server.objects = {
        f"{RUNS}/eli5": resource("eli5", done | ATTEMPT), RUNS: {"items": [resource("eli5", done)]},
        PODS: {"items": [POD]}, f"{PODS}/eli5-1-x/log": b"a\nb\n", EVENTS: {"items": []},
    }  # fmt: skip
    async with AsyncClient() as client:
        run, runs, log, seen = await asyncio.gather(
            client.get("eli5"), client.list(), collected(client.logs("eli5")), collected(client.watch("eli5"))
        )
        with pytest.raises(RunFailed, match="Diverged"):
            await client.wait(run)
        with pytest.raises(NotFound):
            await client.wait("absent")

        assert (run.name, runs[0].name, log) == ("eli5", "eli5", ["a", "b"])
        assert [each.reason for each in seen] == ["Diverged"]
        assert (await client.suspend("eli5")).name == "eli5"
        assert await client.events("eli5") == []
        await client.delete("eli5")


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


async def test_leaving_a_stream_ends_its_thread_and_a_slow_reader_is_waited_for() -> None:
    # given a stream without an end
    ended_, read = threading.Event(), 0

    def endless(stop: Stop) -> Iterator[int]:
        nonlocal read
        try:
            while not stop.wanted:
                read += 1
                yield read
        finally:
            ended_.set()

    # when its reader takes three and goes
    stream = streamed(endless)
    taken = [await anext(stream) for _ in range(3)]
    await asyncio.sleep(0.2)
    ahead = read
    await stream.aclose()

    # then it had not been read without bounds, and it ends
    assert taken == [1, 2, 3]
    assert ahead <= 1010
    assert await asyncio.to_thread(ended_.wait, 30)


async def test_cancelling_a_task_ends_the_request_that_it_waits_for(api_server: ApiServer) -> None:
    # given a watch on which nothing comes
    held, closed = threading.Event(), threading.Event()

    def hold(stop: Stop) -> Iterator[int]:
        stop.opened(SimpleNamespace(shutdown=closed.set))
        held.set()
        closed.wait(60)
        yield from ()

    task = asyncio.create_task(collected(streamed(hold)))
    await asyncio.to_thread(held.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(closed.wait, 30)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for IPython in a kernel of Jupyter; what its cell shows, oldest first."""
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)
    module: Any = ModuleType("IPython")
    module.get_ipython = lambda: SimpleNamespace(kernel=object())
    module.display = SimpleNamespace(HTML=str, display=lambda what, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython", module)
    return shown


def test_waiting_in_a_notebook_shows_the_run_in_its_cell(api_server: ApiServer, notebook: list[str]) -> None:
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", ended(True, "Completed", progress={"percent": 100}))

    Client().wait("eli5")
    Client().wait("eli5", progress=False)

    assert len(notebook) == 1
    assert "<progress" in notebook[0]
    assert "Completed" in notebook[0]


@pytest.mark.parametrize(("progress", "said"), [(None, ""), (False, ""), (True, "eli5 · Completed · what it says\n")])
def test_waiting_in_a_script_says_nothing_unless_asked(
    progress: bool | None, said: str, api_server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", ended(True, "Completed"))
    Client().wait("eli5", progress=progress)
    assert capsys.readouterr().err == said


def test_waiting_on_a_terminal_shows_a_bar(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    status = ended(True, "Completed", progress={"percent": 100}) | {"model": "[red]x"}
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", status)

    Client().wait("eli5", progress=True)

    assert "━" in terminal.getvalue()
    assert "eli5 · Completed" in terminal.getvalue()
