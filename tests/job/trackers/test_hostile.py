"""Servers that are no tracker's, or a hostile one: an error in words, bounded, and nothing is sent elsewhere."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lmft_api.spec import Wandb
from lmft_job.trackers.servers import http
from lmft_job.trackers.servers.keys import keys_in
from lmft_job.trackers.servers.mlflow import Mlflow, authorization
from lmft_job.trackers.servers.wandb import WeightsAndBiases
from lmft_job.trackers.tracker import RunCard, TrackerError

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[Mapping[str, str]]]]:
    """A server that answers every request so; gives its address, and the headers of all requests."""
    seen: list[Mapping[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            try:
                answer(self)
            except OSError:
                return  # the client has had enough

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            return None

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", seen
    finally:
        running.shutdown()
        running.server_close()


def sends(body: object, status: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.end_headers()
        request.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    return answer


def without_end(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"x" * 65536)


def byte_by_byte(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        time.sleep(0.02)


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


def tracker(uri: str) -> Mlflow:
    return Mlflow(uri, "x", RunCard("1", "x", {"a": "b"}, {}), lambda: {"MLFLOW_TRACKING_TOKEN": "of-the-run"})


def wandb(uri: str) -> WeightsAndBiases:
    card = RunCard("1", "x", {"a": "b"}, {})
    return WeightsAndBiases(Wandb(url=uri), card, lambda: {"WANDB_API_KEY": "of-the-run"}, "x")


BY_NAME = {"experiment": {"experiment_id": "1"}}
HOSTILE: dict[str, tuple[Answer, str]] = {
    "without end": (without_end, "more than 4 MiB"),
    "byte by byte": (byte_by_byte, "more than 1 seconds"),
    "silent": (silent, "timed out"),
    "no JSON": (sends(b"<html>"), "Expecting value"),
    "deep": (sends(b"[" * 100_000), "recursion"),
    "a list": (sends([]), "not the JSON"),
    "no experiment": (sends({}), "not one of MLflow's"),
    "experiment of another type": (sends({"experiment": [1]}), "not one of MLflow's"),
    "id of another type": (sends({"experiment": {"experiment_id": 7}}), "not one of MLflow's"),
    "runs of another type": (sends({**BY_NAME, "runs": [1]}), "not one of MLflow's"),
    "a run without info": (sends({**BY_NAME, "runs": [{}]}), "not one of MLflow's"),
    "a step of another type": (
        sends(
            {
                **BY_NAME,
                "runs": [
                    {"info": {"run_id": "a"}, "data": {"metrics": [{"key": "train/loss", "step": {}}], "params": []}}
                ],
            }
        ),
        "not one of MLflow's",
    ),
    "an error": (sends({"message": "no such user"}, 403), "the server answered 403: no such user"),
    "an error without words": (sends(b"\xff", 500), "the server answered 500"),
    "an error of another type": (sends({"message": {}}, 500), "the server answered 500"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_server_answers_is_an_error_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(http, "_ANSWER_SECONDS", 1.0)
    answer, words = HOSTILE[name]
    with server(answer) as (uri, _), pytest.raises(TrackerError, match=words):
        tracker(uri).open()


def run_of(bucket: object) -> Answer:
    """Begins a run of which it has what is given."""
    begun = {"bucket": {"project": {"name": "p", "entity": {"name": "e"}}}}
    return sends({"data": {"model": {"bucket": bucket}, "upsertBucket": begun}})


NOT_WANDB = "not one of Weights & Biases"
HOSTILE_TO_WANDB: dict[str, tuple[Answer, str]] = {
    **{name: HOSTILE[name] for name in ("without end", "byte by byte", "silent", "no JSON", "deep", "a list")},
    "no data": (sends({}), NOT_WANDB),
    "data of another type": (sends({"data": [1]}), NOT_WANDB),
    "no run": (sends({"data": {}}), NOT_WANDB),
    "errors of another type": (sends({"errors": 7}), NOT_WANDB),
    "a name that leads elsewhere": (
        sends({"data": {"upsertBucket": {"bucket": {"project": {"name": "..", "entity": {"name": "e"}}}}}}),
        NOT_WANDB,
    ),
    "lines of another type": (run_of({"historyLineCount": "many"}), NOT_WANDB),
    "fewer lines than none": (run_of({"historyLineCount": -1}), NOT_WANDB),
    "a summary that is none": (run_of({"summaryMetrics": "[1]"}), NOT_WANDB),
    "a summary that is no text": (run_of({"summaryMetrics": {"a": 1}}), NOT_WANDB),
    "a deep summary": (run_of({"summaryMetrics": "[" * 100_000}), NOT_WANDB),
    "a step that is none": (run_of({"summaryMetrics": '{"train/global_step": [1]}'}), NOT_WANDB),
    "an infinite step": (run_of({"summaryMetrics": '{"train/global_step": Infinity}'}), NOT_WANDB),
    "a tail that is none": (run_of({"historyTail": "[1]"}), NOT_WANDB),
    "rows of another": (run_of({"historyLineCount": 9, "historyTail": '["{}"]'}), "has rows, but none with train/"),
    "a refusal": (sends({"data": None, "errors": [{"message": "no such team"}]}), "the server refuses: no such team"),
    "an error": (sends({"errors": [{"message": "permission denied"}]}, 403), "answered 403: permission denied"),
    "an error of another form": (sends({"error": "user is not logged in"}, 401), "answered 401: user is not logged"),
    "an error without words": (sends({"errors": []}, 500), "the server answered 500"),
}


@pytest.mark.parametrize("name", HOSTILE_TO_WANDB)
def test_what_another_server_answers_is_an_error_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(http, "_ANSWER_SECONDS", 1.0)
    answer, words = HOSTILE_TO_WANDB[name]
    with server(answer) as (uri, _), pytest.raises(TrackerError, match=words):
        wandb(uri).open()


def test_names_that_a_server_gives_stay_below_its_own_files() -> None:
    begun = {"bucket": {"project": {"name": "../a?b", "entity": {"name": "@evil.example/"}}}}
    paths: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        sends({"data": {"upsertBucket": begun}})(request)

    with server(answer) as (uri, _):
        tracker = wandb(uri)
        tracker.open()
        tracker.close(None)
    assert paths[-1] == "/files/%40evil.example%2F/..%2Fa%3Fb/1/file_stream"


def test_without_a_key_nothing_is_sent() -> None:
    with server(sends({})) as (uri, seen), pytest.raises(TrackerError, match="there is no WANDB_API_KEY; "):
        WeightsAndBiases(Wandb(url=uri), RunCard("1", "x", {}, {}), dict, "x").open()
    assert seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_nothing_elsewhere(status: int) -> None:
    with server(sends({})) as (elsewhere, reached):

        def away(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", elsewhere)
            request.end_headers()

        with server(away) as (uri, seen), pytest.raises(TrackerError, match=f"{status}, a redirect"):
            tracker(uri).open()
    assert [headers["Authorization"] for headers in seen] == ["Bearer of-the-run"]
    assert reached == []


def test_keys_are_those_of_the_secret_and_read_again(tmp_path: Path) -> None:
    read = keys_in(tmp_path, in_pod=True)
    (tmp_path / "MLFLOW_TRACKING_USERNAME").write_text("me\n")
    (tmp_path / "MLFLOW_TRACKING_PASSWORD").write_text("secret\n")
    assert authorization(read()) == {"Authorization": "Basic bWU6c2VjcmV0"}

    (tmp_path / "MLFLOW_TRACKING_TOKEN").write_text("token")
    assert authorization(read()) == {"Authorization": "Bearer token"}


def test_a_pod_takes_no_keys_from_its_environment_and_a_laptop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")

    assert authorization(keys_in(None, in_pod=True)()) == {}
    assert authorization(keys_in(None, in_pod=False)()) == {"Authorization": "Bearer mine"}
