"""What the operator does when something is lost: a watch, a node, a result; and what runs have used."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import JOBS, PODS, Api, Operator, Run
from cluster.operator.proxy import Proxy
from cluster.ports import free_port
from support.results import DONE

Start = Callable[..., Operator]
Component = Callable[[str, str], None]


@pytest.fixture
def start(api: Api, tmp_path: Path) -> Iterator[Start]:
    """Start an operator with settings of its own."""
    started: list[Operator] = []

    def make(kubeconfig: Path | None = None, **settings: Any) -> Operator:
        operator = Operator(tmp_path, kubeconfig or api.kubeconfig, free_port(), SETTINGS | settings)
        started.append(operator.start())
        return operator

    yield make
    for operator in started:
        assert operator.process is not None
        if operator.process.poll() is None:
            operator.stop()


def test_a_dead_watch_fails_the_liveness_probe_and_a_restart_mends_it(start: Start, api: Api, tmp_path: Path) -> None:
    with Proxy(api.server, api.tls) as proxy:
        operator = start(proxy.kubeconfig(tmp_path), watch={"staleSeconds": 3, "resyncSeconds": 2})
        run = Run(api, api.namespace()).create()
        run.wait("Pending")
        assert operator.ask("/healthz") == 200

        # when the API server answers, and its watches say nothing any more
        proxy.mute()
        run.runs()

        # then lists still bring the news, a write is made, and the watch never shows it
        eventually(lambda: operator.ask("/healthz") == 500, "a failing liveness probe")
        assert run.wait("Training")["phase"] == "Training"
        operator.stop()
    start()
    run.ends(said=DONE)
    run.wait("Completed")


def test_a_pod_of_a_vanished_node_is_not_waited_for_beyond_its_grace_and_a_margin(start: Start, api: Api) -> None:
    start(job=SETTINGS["job"] | {"terminationGracePeriodSeconds": 4},
          retries={"initialSeconds": 1, "podEndMarginSeconds": 2})  # fmt: skip
    run = Run(api, api.namespace()).create()
    # given a pod on a node whose kubelet will never answer
    pod = run.pod()["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": "vanished"}
    api.call("POST", f"{PODS.format(run.namespace)}/{pod}/binding", {"metadata": {"name": pod}, "target": target})
    run.runs()
    run.wait("Training")

    # when it is to go, and stays
    api.call("DELETE", f"{PODS.format(run.namespace)}/{pod}")
    run.wait("Interrupted")

    # then the next attempt starts beside it
    assert run.job(2)["metadata"]["name"] == "eli5-2"
    assert api.get(f"{PODS.format(run.namespace)}/{pod}") is not None
    run.ends(2, said=DONE)
    status = run.wait("Completed")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Interrupted", "Completed"]
    assert "did not end within its grace period" in status["attempts"][0]["message"]


def test_a_job_that_its_controller_has_lost_track_of_is_replaced(start: Start, api: Api, component: Component) -> None:
    start(retries={"initialSeconds": 1, "podEndMarginSeconds": 2})
    run = Run(api, api.namespace()).create()
    run.runs()
    run.wait("Training")

    # when the pod goes, and the controller has counted it and says no more
    component("stop", "manager")
    job, pod = run.job()["metadata"]["name"], run.pod()["metadata"]["name"]
    api.patch(f"{PODS.format(run.namespace)}/{pod}", {"metadata": {"finalizers": None}})
    api.call("DELETE", f"{PODS.format(run.namespace)}/{pod}?gracePeriodSeconds=0")
    counts = {"active": None, "failed": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}
    api.patch(f"{JOBS.format(run.namespace)}/{job}/status", {"status": counts})

    # then the run goes on without it
    assert run.job(2)["metadata"]["name"] == "eli5-2"
    component("start", "manager")
    run.ends(2, said=DONE)
    status = run.wait("Completed")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Interrupted", "Completed"]
    eventually(lambda: [job["metadata"]["name"] for job in run.jobs()] == ["eli5-2"], "the lost Job is deleted")


def test_a_result_that_is_gone_with_its_pod_is_fetched_by_one_more_attempt(start: Start, api: Api) -> None:
    operator = start()
    run = Run(api, api.namespace(), spec={"resources": {"gpusPerNode": 1}, "preparation": "Inline"}).create()
    run.runs()
    run.wait("Training")
    operator.stop()
    pod = run.pod()["metadata"]["name"]
    run.ends(said=DONE)
    eventually(lambda: run.job().get("status", {}).get("succeeded"), "a complete Job")
    api.call("DELETE", f"{PODS.format(run.namespace)}/{pod}")
    start()
    fetching = run.job(2)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert "limits" not in fetching, "a finished run answers without a GPU"
    run.ends(2, said=DONE)
    assert run.wait("Completed")["results"]["perplexity"] == "49.6"


def test_what_a_run_has_used_stands_in_its_status_and_is_counted_by_namespace(start: Start, api: Api) -> None:
    operator = start()
    run = Run(api, api.namespace(), spec={"resources": {"gpusPerNode": 1}}).create()
    run.ends(said=DONE, seconds=30)
    run.ends(2, said=DONE, seconds=100)
    assert run.wait("Completed")["usage"] == {"seconds": 130, "gpuSeconds": 100}
    metrics = operator.metrics()
    assert f'lmft_run_seconds_total{{namespace="{run.namespace}"}} 130.0' in metrics
    assert f'lmft_run_gpu_seconds_total{{namespace="{run.namespace}"}} 100.0' in metrics
    assert f'lmft_attempts_ended_total{{namespace="{run.namespace}",reason="Completed"}} 2.0' in metrics
    assert f'lmft_runs{{namespace="{run.namespace}",phase="Succeeded",reason="Completed"}} 1.0' in metrics


def test_without_a_default_a_manifest_must_say_where_its_output_goes(start: Start, api: Api) -> None:
    start(defaults={})
    run = Run(api, api.namespace(), spec={"output": {"weights": "Last"}}).create()
    run.wait("InvalidSpec")
    assert "spec.output.uri: is required" in run.condition()["message"]


def test_an_operator_for_some_namespaces_leaves_the_others_alone(start: Start, api: Api) -> None:
    served, other = api.namespace(), api.namespace()
    start(watch={"namespaces": [served], "resyncSeconds": 2})
    alone = Run(api, other).create()
    run = Run(api, served).create()
    run.ends(said=DONE)
    run.wait("Completed")
    assert alone.status() == {}
    assert api.items(JOBS.format(other)) == []
