"""The operator as a process: restarts, absence, an API server that goes away, probes, logs, and how much it writes."""

import json
import signal
import time
from collections.abc import Iterator

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import Api, Operator, Run
from cluster.ports import free_port
from support.results import DONE

AGENT = "lmfinetune-operator"


@pytest.fixture
def own(api: Api, tmp_path) -> Iterator[Operator]:
    """An operator that a test may stop."""
    operator = Operator(tmp_path, api.kubeconfig, free_port(), SETTINGS).start()
    yield operator
    if operator.process.poll() is None:
        operator.stop()


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1, 0.3])
def test_killed_at_any_moment_it_makes_no_second_job(own, api, moment):
    run = Run(api, api.namespace()).create()
    time.sleep(moment)
    own.restart()
    run.runs()
    time.sleep(moment)
    own.restart()
    run.ends(said=DONE)
    time.sleep(moment)
    own.restart()
    status = run.wait("Completed")
    assert (len(run.jobs()), len(status["attempts"])) == (1, 1)


def test_a_failure_that_may_pass_is_said_to_be_tried_again(own, api):
    own.stop()
    own.settings = SETTINGS | {"retries": {"initialSeconds": 3600}}
    own.start()
    run = Run(api, api.namespace()).create()
    run.ends(code=6, said="no answer")
    status = run.wait("Retrying")
    assert (status["failures"], status["attempts"][0]["reason"]) == (1, "StorageUnavailable")
    assert "Retrying after" in run.condition()["message"]


def test_what_happened_while_it_was_away_is_caught_up_with(own, api):
    finished, deleted = Run(api, api.namespace()).create(), Run(api, api.namespace()).create()
    finished.pod()
    deleted.pod()
    own.stop()
    finished.ends(said=DONE)
    deleted.delete()
    started = Run(api, api.namespace()).create()
    own.start()
    finished.wait("Completed")
    started.pod()
    assert own.metrics().count('reason="Pending"') >= 1


def test_it_stops_in_order_and_in_time(own):
    assert own.stop(signal.SIGTERM) < 10
    assert own.process.returncode == 0


def test_it_answers_probes_and_counts(own, api):
    run = Run(api, api.namespace()).create()
    run.wait("Pending")
    assert (own.ask("/healthz"), own.ask("/readyz")) == (200, 200)
    text = own.metrics()
    assert f'lmft_runs{{namespace="{run.namespace}",phase="Pending",reason="Pending"}} 1.0' in text
    assert 'lmft_api_requests_total{code="201",resource="jobs",verb="POST"}' in text
    assert "lmft_reconcile_seconds_count" in text
    assert "lmft_queue_ready" in text


def test_logs_are_json_and_name_the_run(own, api):
    run = Run(api, api.namespace()).create()
    run.wait("Pending")
    lines = [json.loads(line) for line in own.log.read_text().splitlines()]
    assert any(line.get("namespace") == run.namespace and line.get("name") == "eli5" for line in lines)


def test_it_writes_little_until_the_job_exists_and_nothing_at_rest(own, api, plane):
    log = plane / "logs/audit.log"
    run = Run(api, api.namespace()).create()
    run.pod()
    run.wait("Pending")
    time.sleep(3)
    before = api.writes(log, AGENT, run.namespace)
    assert len(before) <= 3, [(w["verb"], w["objectRef"]) for w in before]
    assert {"create jobs", "patch lmfinetunes"} == {f"{w['verb']} {w['objectRef']['resource']}" for w in before}
    time.sleep(12)
    assert api.writes(log, AGENT, run.namespace) == before


def test_the_resource_carries_no_mark_of_the_operator(own, api):
    run = Run(api, api.namespace()).create()
    run.wait("Pending")
    metadata = run.body()["metadata"]
    assert "annotations" not in metadata
    assert "finalizers" not in metadata


def test_two_hundred_runs_at_once_all_get_their_jobs(own, api):
    namespace = api.namespace()
    runs = [Run(api, namespace, f"run-{number}").create() for number in range(200)]
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    eventually(lambda: len(api.items(path)) == 200, "200 Jobs")
    whole = runs[0].path.rsplit("/", 1)[0]
    eventually(lambda: all(r.get("status", {}).get("attempts") for r in api.items(whole)), "statuses")
    # Every write comes back through the watch, or the operator would take the watch for dead.
    eventually(lambda: "lmft_watch_unseen 0.0" in own.metrics(), "all writes seen")


def test_an_api_server_that_goes_away_and_comes_back_costs_nothing(own, api, component):
    running, waiting = Run(api, api.namespace()).create(), Run(api, api.namespace()).create()
    running.runs()
    running.wait("Training")
    component("stop", "apiserver")
    time.sleep(5)
    assert own.ask("/healthz") == 200
    component("start", "apiserver")
    eventually(api.reachable, "the API server")
    running.ends(said=DONE)
    running.wait("Completed")
    waiting.ends(said=DONE)
    waiting.wait("Completed")
    assert len(running.jobs()) == 1
