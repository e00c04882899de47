"""Live progress: the wire format, and that training never waits for it."""

import itertools
import threading
import time
from typing import Any

from support.progress_double import server

from lmft_api.figures import FIGURES
from lmft_api.wire.progress import JobPhase, MetricName, ProgressMessage
from lmft_api.wire.report import EvaluationRow, ResumePoint
from lmft_job.observers.events import StepDone
from lmft_job.observers.reporter import Endpoint, ProgressReporter, ProgressState


def metrics(body: dict[str, Any]) -> dict[str, str]:
    return {metric["name"]: metric["value"] for metric in body["trainerStatus"]["metrics"]}


def test_a_report_has_the_trainers_format_and_the_pods_token(tmp_path):
    token = tmp_path / "token"
    token.write_text("abc\n")
    with server() as (url, taken):
        with ProgressReporter(Endpoint(url, None, token), interval=60) as reporter:
            reporter.step(StepDone(1, 10, 0.1, 4.0, 2e-5))
            reporter.step(StepDone(5, 10, 0.5, 3.5, 1e-5, 1000.0))
            reporter.evaluation(EvaluationRow(step=5, epoch=0.5, eval_loss=3.0, perplexity=20.085))
    last = taken[-1]
    assert last["authorization"] == "Bearer abc"
    assert ProgressMessage.model_validate(last["body"]).trainer_status.progress_percentage == 50
    found = metrics(last["body"])
    assert (found["loss"], found["current_step"], found["total_steps"], found["current_epoch"]) == (
        "3.5",
        "5",
        "10",
        "0.5",
    )
    assert (found["eval_loss"], found["perplexity"], found["tokens_per_second"]) == ("3", "20.085", "1000")


def test_what_is_sent_goes_by_names_that_the_operator_knows():
    reporter = ProgressReporter(Endpoint("http://nowhere", None, None))
    values: dict[str, Any] = {kind.name: 0.5 for kind in FIGURES}
    figures = EvaluationRow(step=5, epoch=0.5, train_loss=3.2, **values)
    reporter.phase(JobPhase.TRAINING)
    reporter.resumed(ResumePoint(step=400, lost_steps=12), 1)
    reporter.baseline(figures)
    reporter.step(StepDone(5, 10, 0.5, 3.5, 1e-5, 1000.0))
    reporter.evaluation(figures)
    reporter.checkpoint(5)
    reporter.straggler("rank 3")

    sent = {metric.name for metric in reporter._state.message().trainer_status.metrics}

    assert sent == set(MetricName) | {name for kind in FIGURES for name in (kind.name, kind.baseline)}


def test_the_time_left_counts_only_the_steps_of_this_process():
    # given a run resumed from step 400 of 1000 that makes a step every 2 seconds
    now = [0.0]
    state = ProgressState(clock=lambda: now[0])
    for step in range(401, 412):
        state.step(StepDone(step, 1000, step / 100))
        now[0] += 2.0
    now[0] -= 2.0
    status = state.message().trainer_status
    assert status.estimated_remaining_seconds == 2 * (1000 - 411)
    assert status.progress_percentage == 41


def test_the_time_left_is_the_one_in_the_log_and_leaves_evaluations_out():
    # given steps of 2 seconds, and an evaluation of a minute between them
    now = [0.0]
    reporter = ProgressReporter(Endpoint("http://nowhere", None, None))
    reporter._state = ProgressState(clock=lambda: now[0])
    for step in range(1, 6):
        reporter.step(StepDone(step, 105, 0.0))
        now[0] += 2.0
        if step == 3:
            now[0] += 60.0 - 2.0
            reporter.evaluation(EvaluationRow(step=step, epoch=0.5, eval_loss=3.0))
            now[0] += 2.0
    assert reporter._state.message().trainer_status.estimated_remaining_seconds == 200


def test_a_server_that_never_answers_costs_no_step_any_time():
    released = threading.Event()
    with server(silent=released) as (url, taken):
        with ProgressReporter(Endpoint(url, None, None), interval=0.01) as reporter:
            while not taken:
                time.sleep(0.01)
            # when a post hangs, then a thousand steps pass without one of them waiting for it
            for step in range(1, 1001):
                reporter.step(StepDone(step, 1000, 0.0, 1.0))
            assert not released.is_set()
            assert len(taken) == 1
            released.set()


def test_a_change_of_phase_is_posted_at_once():
    with server() as (url, taken):
        with ProgressReporter(Endpoint(url, None, None), interval=600) as reporter:
            # Ten minutes lie between two reports; those of a change of phase do not wait for them.
            for phase in JobPhase:
                reporter.phase(phase)
                while not taken or metrics(taken[-1]["body"]).get("phase") != phase:
                    time.sleep(0.005)
    assert ProgressMessage.model_validate(taken[-1]["body"]).trainer_status.metric("phase") == "Saving"


def test_news_that_come_close_together_are_posted_no_faster_than_the_operator_takes_them():
    with server() as (url, taken):
        with ProgressReporter(Endpoint(url, None, None), interval=600) as reporter:
            for step in range(1, 4):
                reporter.evaluation(EvaluationRow(step=step, epoch=0.5, eval_loss=3.0, perplexity=20.085))
                reporter.checkpoint(step)
                time.sleep(0.1)
    assert metrics(taken[-1]["body"])["checkpoint_step"] == "3"
    assert all(later["time"] - earlier["time"] > 0.5 for earlier, later in itertools.pairwise(taken))


def test_where_an_attempt_goes_on_is_posted_at_once():
    with server() as (url, taken):
        with ProgressReporter(Endpoint(url, None, None), interval=600) as reporter:
            reporter.resumed(ResumePoint(step=400, lost_steps=12), 1)
            while not taken or "lost_steps" not in metrics(taken[-1]["body"]):
                time.sleep(0.005)
    assert metrics(taken[-1]["body"]) == {"resumed_from_step": "400", "lost_steps": "12"}


def test_a_refusal_is_said_once_and_not_for_every_report():
    said: list[str] = []
    with server(status=403) as (url, taken):
        with ProgressReporter(Endpoint(url, None, None), interval=0.01, say=said.append) as reporter:
            while len(taken) < 3:
                reporter.checkpoint(len(taken))
                time.sleep(0.02)
    assert said == ["progress reports do not get through (the server answered 403); training continues"]


def test_without_a_server_there_is_no_endpoint():
    assert Endpoint.from_environment({}) is None
    assert Endpoint.from_environment({"KUBEFLOW_TRAINER_SERVER_URL": "https://operator:8443/x"}) is not None
