"""The Python client on a real API server: what it does, what it says of refusals, and what it outlives."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml
from cluster.eventually import eventually
from cluster.operator.plane import ROOT, RUNS, SPEC, Api
from docs.pages import blocks
from support import s3server
from support.report_samples import demo_report

from lmft import (
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    InvalidManifest,
    NotFound,
    Run,
    RunFailed,
    Unauthorized,
    WaitTimeout,
)
from lmft.cluster.watching import _changes

Component = Callable[[str, str], None]
Write = Callable[..., None]


@pytest.fixture(scope="module")
def namespace(api: Api) -> str:
    return api.namespace()


@pytest.fixture
def client(api: Api, namespace: str) -> Iterator[Client]:
    with Client(namespace, kubeconfig=api.kubeconfig) as client:
        yield client


@pytest.fixture
def write(api: Api, namespace: str) -> Write:
    """The condition of a run, as the operator writes it."""

    def write(name: str, status: str, reason: str, message: str = "") -> None:
        condition = {"type": "Succeeded", "status": status, "reason": reason, "message": message}
        body = {"status": {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
        api.patch(f"{RUNS.format(namespace)}/{name}/status", body)

    return write


def as_account(api: Api, namespace: str, folder: Path, token: str | None = None) -> Client:
    """A client with the rights of the namespace's service account, which has none."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    token = token or str(api.call("POST", path, {"spec": {}})["status"]["token"])
    config: dict[str, Any] = yaml.safe_load(api.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    (folder / "config").write_text(yaml.safe_dump(config))
    return Client(namespace, kubeconfig=folder / "config")


def test_a_run_is_created_listed_read_suspended_resumed_and_deleted(client: Client, namespace: str) -> None:
    made = client.create(SPEC, name="all")
    tried = client.create(SPEC, name="dry", dry_run=True)

    assert (made.namespace, made.name, made.reason, made.ended) == (namespace, "all", "Pending", False)
    assert made.spec.output is not None
    assert made.spec.output.uri == "s3://models/test"
    assert tried.name == "dry"
    assert [run.name for run in client.list()] == ["all"]
    assert [run.uid for run in client.list(everywhere=True) if run.namespace == namespace] == [made.uid]
    assert client.list(selector="team=b") == []
    assert client.suspend(made).suspended
    assert not client.resume("all").suspended
    assert client.events(made) == []

    client.delete(made)
    eventually(lambda: not client.list(), "a deleted run")
    with pytest.raises(NotFound, match="there is no LMFineTune all"):
        client.get("all")


def test_a_run_that_took_the_name_of_another_is_not_taken_for_it(client: Client) -> None:
    old = client.create(SPEC, name="twice")
    client.delete(old)
    eventually(lambda: not client.list(), "a deleted run")
    client.create(SPEC, name="twice")

    for use in (client.get, client.suspend, client.resume, client.wait):
        with pytest.raises(NotFound, match="deleted; there is another one of its name"):
            use(old)
    with pytest.raises(Conflict, match="UID"):
        client.delete(old)
    client.delete("twice")


def test_mistakes_are_all_told_by_us_or_by_the_server_and_a_name_is_taken_once(client: Client) -> None:
    wrong = SPEC | {"task": "Cooking", "training": {"epochs": -1, "lerningRate": "1"}}

    with pytest.raises(InvalidManifest) as ours:
        client.create(wrong, name="wrong")
    with pytest.raises(InvalidManifest) as theirs:
        client.create(SPEC | {"task": "Cooking", "training": {"epochs": -1}}, name="wrong", validate=False)

    assert [problem.path for problem in ours.value.problems] == [
        "spec.task", "spec.training.epochs", "spec.training.lerningRate",
    ]  # fmt: skip
    with pytest.raises(InvalidManifest, match=r"spec\.training\.lerningRate: unknown field"):
        client.create(SPEC | {"training": {"lerningRate": "1"}}, name="wrong", validate=False)
    assert {"spec.task", "spec.training.epochs"} <= {problem.path for problem in theirs.value.problems}
    client.create(SPEC, name="taken")
    with pytest.raises(Conflict, match=r"there is a LMFineTune taken in namespace .* already"):
        client.create(SPEC, name="taken")
    with pytest.raises(NotFound, match='namespaces "no-such" not found'):
        client.create(SPEC, name="lost", namespace="no-such")
    client.delete("taken")


def test_who_may_not_is_told_the_rule_that_is_missing(api: Api, namespace: str, tmp_path: Path) -> None:
    with as_account(api, namespace, tmp_path) as nobody:
        for use, verb in (
            (lambda: nobody.get("x"), "get"),
            (lambda: nobody.list(), "list"),
            (lambda: nobody.create(SPEC, name="x"), "create"),
            (lambda: nobody.suspend("x"), "patch"),
            (lambda: nobody.delete("x"), "delete"),
        ):
            with pytest.raises(Forbidden) as refused:
                use()
            assert refused.value.rule is not None
            assert (refused.value.rule.verb, refused.value.rule.resource) == (verb, "lmfinetunes")
            assert f"you may not {verb} lmfinetunes in namespace {namespace}" in str(refused.value)
    with as_account(api, namespace, tmp_path, token="nonsense") as stranger, pytest.raises(Unauthorized):
        stranger.list()


def test_waiting_ends_on_failure_with_the_remedy_and_when_the_time_is_over(client: Client, write: Write) -> None:
    run = client.create(SPEC, name="waits")

    with pytest.raises(WaitTimeout) as late:
        client.wait(run, timeout=0.5)
    write("waits", "False", "Diverged", "the loss is NaN at step 12")
    with pytest.raises(RunFailed, match=r"failed, Diverged: the loss is NaN at step 12.*What to do: ") as failed:
        client.wait(run)

    assert late.value.run.uid == run.uid
    assert (failed.value.reason, failed.value.run.ended) == ("Diverged", True)
    assert "learningRate" in failed.value.remedy
    assert client.wait(run, check=False).reason == "Diverged"
    client.delete(run)


def test_a_watch_outlives_a_restart_of_the_api_server_and_a_version_that_has_expired(
    api: Api, client: Client, write: Write, component: Component
) -> None:
    # given a run that is watched
    run = client.create(SPEC, name="watched")
    lost: list[str] = []

    def started(words: str) -> None:
        lost.append(words)
        component("start", "apiserver")
        eventually(api.reachable, "a ready API server")
        write("watched", "True", "Completed")

    seen = client.watch(run, on_lost=started)
    assert next(seen).reason == "Pending"
    write("watched", "Unknown", "Training")
    assert next(run.reason for run in seen if run.reason != "Pending") == "Training"

    # when the API server goes, and comes back with news
    component("stop", "apiserver")
    last = list(seen)[-1]

    # then that is said once, and the news arrive
    assert last.succeeded
    assert len(lost) == 1
    assert "does not answer" in lost[0]

    # and a version from before the restart is too old to watch from, which only ends that watch
    old = replace(run, resource_version="1")
    assert list(_changes(client._connection, old, None, None)) == []
    client.delete(run)


def test_a_watch_ends_with_its_run(client: Client) -> None:
    run = client.create(SPEC, name="gone")
    seen = client.watch(run)
    next(seen)
    client.delete(run)
    with pytest.raises(NotFound, match="was deleted"):
        list(seen)


def test_the_page_about_the_client_does_what_it_says(
    api: Api, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a cluster whose runs train at once, and the storage to which they report
    page = blocks("python cluster")
    program = "\n".join(block.text for block in page).replace("team-a", namespace)
    with s3server.running(tmp_path) as s3, runs_that_train(api, namespace, s3):
        for name, value in (s3.environment() | {"KUBECONFIG": str(api.kubeconfig)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(ROOT)

        # when all of the page is typed into one session
        exec(compile(program, page[0].page.name, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own page

    # then it prints what its comments say
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "perplexity 98.43"
    assert printed[1].startswith("spec.task must be one of")
    assert printed[2] == "spec.training.lerningRate unknown field; did you mean learningRate?"
    assert any(line.startswith("rate-1e-5 · Completed") for line in printed)
    assert "rate-1e-5 Completed 98.43 4.5" in printed
    assert "1e-5" in printed
    assert f"{demo_report().results.perplexity} ± {demo_report().results.perplexity_standard_error}" in printed
    assert "['Completed']" in printed
    assert printed[-1] == f"there is no LMFineTune no-such-run in namespace {namespace}. Look with: lmft ls -A"


@contextmanager
def runs_that_train(api: Api, namespace: str, s3: s3server.S3Server) -> Iterator[None]:
    """Every run of a namespace trains, and is done when it is looked at again."""
    report = f"s3://{s3server.BUCKET}/docs"
    s3.client().put_object(Bucket=s3server.BUCKET, Key="docs/report.json", Body=demo_report().to_json())
    figures = {"display": "perplexity 98.43", "perplexity": "98.43", "perplexityStandardError": "4.5"}
    over = threading.Event()

    def train() -> None:
        while not over.wait(0.2):
            for run in api.items(RUNS.format(namespace)):
                reason = next((c["reason"] for c in run.get("status", {}).get("conditions", [])), "")
                after = {"": "Training", "Training": "Completed"}.get(reason)
                if after is None:
                    continue
                done = after == "Completed"
                condition = {"type": "Succeeded", "status": "True" if done else "Unknown", "reason": after}
                since = {"message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                status: dict[str, Any] = {"conditions": [condition | since]}
                if done:
                    status["results"] = figures | {"reportURI": f"{report}/report.html"}
                with suppress(HTTPError):  # deleted meanwhile
                    api.patch(f"{RUNS.format(namespace)}/{run['metadata']['name']}/status", {"status": status})

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


async def test_asyncio_watches_many_runs_beside_each_other_and_stops_when_asked(
    api: Api, client: Client, namespace: str, write: Write
) -> None:
    for number in range(20):
        client.create(SPEC, name=f"many-{number}")
    async with AsyncClient(namespace, kubeconfig=api.kubeconfig) as many:
        waiting = [asyncio.create_task(many.wait(f"many-{number}", timeout=120)) for number in range(20)]
        waiting[0].cancel()
        for number in range(1, 20):
            await asyncio.to_thread(write, f"many-{number}", "True", "Completed")
        ended = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(ended[0], asyncio.CancelledError)
    assert [run.reason for run in ended[1:] if isinstance(run, Run)] == ["Completed"] * 19
