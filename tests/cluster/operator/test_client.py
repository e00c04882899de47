"""The Python client on a real API server: what it does, what it says of refusals, and what it outlives."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.eventually import eventually
from cluster.operator.plane import RUNS, SPEC, Api

from lmft import Client, Conflict, Forbidden, InvalidManifest, NotFound, RunFailed, Unauthorized, WaitTimeout
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
