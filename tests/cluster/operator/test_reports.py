"""Live progress on a real API server: its tokens, its reviews, and what a report makes of the resource."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import JOBS, PODS, Api, Json, Run
from cluster.operator.reporting import HOST, Reporting, certificate, report
from support.results import DONE

from lmft_operator.process.limits import Limits

AGENT = "lmfinetune-operator"


@pytest.fixture(scope="module")
def operator(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reporting]:
    folder = tmp_path_factory.mktemp("reports")
    reporting = Reporting.start(folder, api.kubeconfig, SETTINGS, patchSeconds=1)
    yield reporting
    assert reporting.operator.stop() < 10
    assert "Traceback" not in reporting.operator.log.read_text()


@pytest.fixture
def training(new_run: Callable[..., Run]) -> Run:
    run = new_run()
    run.runs()
    run.wait("Training")
    return run


def test_a_report_shows_in_the_resource(training: Run, operator: Reporting) -> None:
    evaluation = {"eval_loss": 2.0, "perplexity": 7.389, "eval_step": 1, "eval_epoch": 1}
    operator.told(training.token(), loss=3.71, tokens_per_second=1630, **evaluation)
    progress = eventually(lambda: training.status().get("progress"), "progress")
    assert (progress["display"], progress["eta"], progress["step"]) == ("11%", "1m0s", 1)
    assert (progress["loss"], progress["tokensPerSecond"]) == ("3.7100", 1630)
    status = training.status()
    assert status["evaluations"][0]["perplexity"] == "7.39"
    assert training.condition()["message"] == "step 1 of 9"


def test_the_phases_of_the_job_show_as_reasons(training: Run, operator: Reporting) -> None:
    token = training.token()
    operator.told(token, phase="Evaluating")
    training.wait("Evaluating")
    assert "step 1 of 9" in training.condition()["message"]
    assert training.status()["phase"] == "Training"
    operator.told(token, phase="Training", current_step=2)
    training.wait("Training")
    training.ends(said=DONE)
    training.wait("Completed")


def test_a_burst_of_reports_makes_few_writes(training: Run, operator: Reporting, api: Api, plane: Any) -> None:
    token = training.token()
    taken = 0
    start = time.time()
    while taken < 20:
        taken += operator.post(token, report(current_step=taken, phase=("Training", "Evaluating")[taken % 2])) == 200
    seconds = time.time() - start

    def patches() -> list[Json]:
        found = api.writes(plane / "logs/audit.log", AGENT, training.namespace)
        return [write for write in found if write["verb"] == "patch"]

    # One for the Job, one for the start; then at most one a second here, and a few for news at once.
    assert len(patches()) <= 2 + seconds + 2 + 6
    assert taken == 20


def test_what_proves_nothing_is_refused_counted_and_changes_nothing(
    training: Run, operator: Reporting, api: Api, new_run: Callable[..., Run]
) -> None:
    operator.told(training.token())
    before = eventually(lambda: training.status().get("progress"), "progress")
    other = new_run()
    foreign = foreign_pod(api, training)
    bare = foreign_pod(api, training, job=False)
    attempts = [
        (None, 401, "token"),
        ("not.a.token", 401, "token"),
        (forged(training.token()), 401, "token"),
        (training.token(audience="https://kubernetes.default.svc.cluster.local"), 401, "audience"),
        (unbound(api, training.namespace), 403, "unbound"),
        (foreign, 403, "job"),
        (bare, 403, "pod"),
    ]
    for token, status, outcome in attempts:
        counted = operator.counted(outcome)
        # The forged one may have to wait a second: the pod's own has just been reviewed.
        eventually(lambda sent=token, code=status: operator.post(sent, report(current_step=8)) == code, outcome)
        assert operator.counted(outcome) == counted + 1
    # A token of another run's pod moves that run, whatever the body says.
    operator.told(other.token(), current_step=8)
    other.wait("Pending")
    assert training.status()["progress"] == before


def forged(token: str) -> str:
    """What claims to be of the run's pod, and is signed by nobody."""
    head, payload, _ = token.split(".")
    return f"{head}.{payload}.{'A' * 342}"


def unbound(api: Api, namespace: str) -> str:
    """A token of the service account that no pod stands for."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    return str(api.call("POST", path, {"spec": {"audiences": ["lmfinetune.dev"]}})["status"]["token"])


def foreign_pod(api: Api, run: Run, *, job: bool = True) -> str:
    """Token of a pod that only wears a run's labels, of a Job that does so too, or of none."""
    mine = run.job()
    labels = {name: text for name, text in mine["metadata"]["labels"].items() if name.startswith("lmfinetune.dev/")}
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
              "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "securityContext": secure}]}
    metadata: Json = {"name": "forged" if job else "bare", "labels": labels}
    if not job:
        pod = api.call("POST", PODS.format(run.namespace), {"metadata": metadata, "spec": spec})
    else:
        body = {"metadata": metadata, "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}
        uid = api.call("POST", JOBS.format(run.namespace), body)["metadata"]["uid"]
        path = PODS.format(run.namespace) + f"?labelSelector=batch.kubernetes.io/controller-uid={uid}"
        pod = eventually(lambda: next(iter(api.items(path)), None), "the forged Job's pod")
    return api.token(run.namespace, pod["metadata"]["name"], pod["metadata"]["uid"], "lmfinetune.dev")


def test_a_job_with_a_runs_labels_is_not_taken_for_its_attempt(training: Run, api: Api, operator: Reporting) -> None:
    uid, elsewhere = training.body()["metadata"]["uid"], api.namespace()
    for namespace in (training.namespace, elsewhere):
        labels = {"lmfinetune.dev/run-uid": uid, "lmfinetune.dev/attempt": "2"}
        template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "c", "image": "i"}]}}  # fmt: skip
        body = {"metadata": {"name": "forged-2", "labels": labels}, "spec": {"template": template, "suspend": True}}
        api.call("POST", JOBS.format(namespace), body)
    training.ends(said=DONE)
    status = training.wait("Completed")
    assert [attempt["job"] for attempt in status["attempts"]] == ["eli5-1"]


BOUNDS = [
    ({"raw": b"x" * 20_000}, 413, "size"),
    ({"raw": b"{"}, 422, "format"),
    ({"message": {"trainerStatus": {"metrics": [{"name": "n" * 65, "value": "1"}]}}}, 422, "format"),
    ({"message": {"trainerStatus": {"metrics": [{"name": "n", "value": "1" * 65}]}}}, 422, "format"),
    ({"message": {"trainerStatus": {"metrics": [{"name": "n", "value": "1"}] * 65}}}, 422, "format"),
    ({"message": {"trainerStatus": {"progressPercentage": 101}}}, 422, "format"),
]


@pytest.mark.parametrize(("body", "status", "outcome"), BOUNDS, ids=str)
def test_size_and_names_of_a_report_are_bounded(training: Run, operator: Reporting, body, status, outcome) -> None:
    token = training.token()
    # Whatever comes too soon after another one is refused for that.
    eventually(lambda: operator.post(token, **body) == status, f"a refusal with {status}")
    assert operator.counted(outcome) >= 1
    assert "progress" not in training.status()


def test_a_flood_of_forged_tokens_costs_a_review_a_second_and_stops_no_report(
    training: Run, operator: Reporting, api: Api
) -> None:
    token = training.token()
    operator.told(token)
    reviews = operator.counter("lmft_api_requests_total", resource="tokenreviews")
    start = time.monotonic()
    for number in range(60):
        assert operator.post(f"{forged(token)[:-3]}{number:03}") in {401, 429}
    seconds = time.monotonic() - start
    assert operator.counter("lmft_api_requests_total", resource="tokenreviews") - reviews <= seconds + 2
    operator.told(token, current_step=2)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "half a handshake"])
def test_reports_and_probes_get_through_a_crowd_of_idle_connections(
    training: Run, operator: Reporting, said: bytes
) -> None:
    token = training.token()
    operator.told(token)
    ports = (operator.port, operator.operator.port, operator.operator.metrics_port)
    with contextlib.ExitStack() as crowd:
        for port in ports * 700:
            stranger = crowd.enter_context(socket.create_connection(("127.0.0.1", port)))
            stranger.sendall(said)
        start = time.monotonic()
        assert operator.operator.ask("/healthz") == 200
        assert time.monotonic() - start < 1
        operator.told(token, current_step=3)
        assert operator.counter("lmft_connections", port="progress") <= 512
        assert operator.counter("lmft_connections_dropped_total", reason="full") > 0


def test_one_that_sends_nothing_does_not_stay(operator: Reporting) -> None:
    context = ssl.create_default_context(cafile=str(operator.folder / "ca.crt"))
    with context.wrap_socket(socket.create_connection(("127.0.0.1", operator.port)), server_hostname=HOST) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
        slow.settimeout(Limits().seconds * 3)
        assert slow.recv(1) == b""


def test_a_renewed_certificate_is_taken_up_without_a_restart(operator: Reporting, training: Run) -> None:
    before = operator.serial()
    certificate(operator.folder)
    eventually(lambda: operator.serial() != before, "the new certificate", 120)
    operator.told(training.token())


def test_a_pods_authority_and_token_are_handed_to_it(training: Run, operator: Reporting) -> None:
    pod = training.pod()
    environment = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    assert environment["KUBEFLOW_TRAINER_SERVER_URL"] == f"https://{HOST}:{operator.port}"
    assert pod["metadata"]["annotations"]["lmfinetune.dev/progress-ca"] == (operator.folder / "ca.crt").read_text()
    (token,) = [v["projected"]["sources"][0] for v in pod["spec"]["volumes"] if v["name"] == "lmft-token"]
    assert token["serviceAccountToken"]["audience"] == "lmfinetune.dev"
