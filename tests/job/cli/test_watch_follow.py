"""``lmft watch`` against a small stand-in for the API server that answers what a test needs; the real one is in e2e."""

import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console
from support.kubeconfig import kubeconfig
from urllib3 import PoolManager

from lmft import LMFineTuneError
from lmft_job.cli.watch.follow import follow

UID = "0d7c5f1e-7a11-4b11-9d6a-0e4f3c2b1a00"
DONE = {
    "conditions": [
        {"type": "Succeeded", "status": "True", "reason": "Completed", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
    "results": {"perplexity": "49.61", "samples": [{"prompt": "The sky", "before": "qe", "after": "is blue"}]},
}


Reply = tuple[int, Any]


class ApiServer(ThreadingHTTPServer):
    """Answers by path: a status code and a body; of several, each once and the last for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, Reply | list[Reply]] = {}
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, ApiServer)
        server.asked.append(self.path)
        found = server.answers.get(self.path.partition("?")[0], (404, {"kind": "Status", "reason": "NotFound"}))
        code, body = found if isinstance(found, tuple) else found.pop(0) if len(found) > 1 else found[0]
        data = json.dumps(body).encode() + b"\n"  # a watch is read by the line
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Not into the test's output."""


@pytest.fixture
def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with ApiServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        (tmp_path / "config").write_text(kubeconfig(f"http://127.0.0.1:{server.server_port}"))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield server
        server.shutdown()


def run(status: Any) -> tuple[int, Any]:
    return 200, {
        "metadata": {"name": "eli5", "namespace": "team-a", "uid": UID, "resourceVersion": "1"},
        "status": status,
    }


def watch(server: ApiServer, *, terminal: bool) -> tuple[bool, str]:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
    return follow("eli5", None, None, console), out.getvalue()


EVENTS = "/api/v1/namespaces/team-a/events"
PATH = "/apis/lmfinetune.dev/v1alpha1/namespaces/team-a/lmfinetunes/eli5"


def test_events_that_may_not_be_read_are_said_and_the_run_is_shown_all_the_same(api_server: ApiServer) -> None:
    api_server.answers = {
        PATH: run(DONE),
        EVENTS: (403, {"kind": "Status", "reason": "Forbidden"}),
    }

    succeeded, shown = watch(api_server, terminal=True)

    assert succeeded
    assert "Events cannot be read: you may not list events in namespace team-a" in " ".join(shown.split())
    assert "49.61" in shown


def test_events_of_a_deleted_run_of_the_same_name_are_not_asked_for(api_server: ApiServer) -> None:
    api_server.answers = {PATH: run(DONE), EVENTS: (200, {"kind": "EventList", "items": []})}

    watch(api_server, terminal=True)

    [asked] = [path for path in api_server.asked if path.startswith(EVENTS)]
    assert parse_qs(urlsplit(asked).query)["fieldSelector"] == [f"involvedObject.uid={UID}"]


def test_the_event_that_tells_of_the_end_is_waited_for_when_it_comes_after_the_status(api_server: ApiServer) -> None:
    # given a run whose end is seen while its last Event is still on its way
    def told(*reasons: str) -> Reply:
        about = {"metadata": {"name": "eli5", "creationTimestamp": "2026-01-01T00:00:01Z"}, "involvedObject": {}}
        return 200, {"kind": "EventList", "items": [about | {"reason": reason} for reason in reasons]}

    api_server.answers = {
        PATH: run({}),
        PATH.rpartition("/")[0]: (200, {"type": "MODIFIED", "object": run(DONE)[1]}),
        EVENTS: [told("Training"), told("Training"), told("Training"), told("Training", "Completed")],
    }

    # when it is watched
    succeeded, shown = watch(api_server, terminal=True)

    # then it is in the last picture
    assert succeeded
    assert "00:00:01 Completed" in shown
    assert len([path for path in api_server.asked if path.startswith(EVENTS)]) == 4


def test_an_event_that_never_comes_holds_up_nobody(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmft_job.cli.watch.follow.LAST_EVENT_SECONDS", 0.3)
    api_server.answers = {
        PATH: run({}),
        PATH.rpartition("/")[0]: (200, {"type": "MODIFIED", "object": run(DONE)[1]}),
        EVENTS: (200, {"kind": "EventList", "items": []}),
    }

    assert watch(api_server, terminal=True)[0]


def test_no_request_waits_for_ever(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    api_server.answers = {PATH: run({}), PATH.rpartition("/")[0]: (403, {"kind": "Status", "reason": "Forbidden"})}
    waits = []

    def request(manager: Any, *words: Any, **options: Any) -> Any:
        waits.append(options["timeout"])
        return plain(manager, *words, **options)

    plain = PoolManager.request
    monkeypatch.setattr(PoolManager, "request", request)

    with pytest.raises(LMFineTuneError):
        watch(api_server, terminal=True)

    assert len(waits) == 3, "the run, its Events, the watch"
    assert all(wait is not None and (wait.total or wait.read_timeout) < 100 for wait in waits)


def test_a_server_that_never_answers_is_said_so_at_once_and_given_up_soon(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    api_server.shutdown()
    api_server.server_close()
    out = io.StringIO()

    with pytest.raises(LMFineTuneError, match=r"at http://127.0.0.1:\d+ does not answer: .*refused.*KUBECONFIG"):
        follow("eli5", None, None, Console(file=out, width=100))

    assert re.match(r"the API server at .* does not answer: .* Retrying every 2 s", out.getvalue())
    assert len(pauses) == 2


def test_a_break_is_told_and_bridged(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    broken = 503, {"kind": "Status", "reason": "ServiceUnavailable"}
    api_server.answers = {
        PATH: [run({}), broken, broken, broken, broken, run(DONE)],
        PATH.rpartition("/")[0]: broken,
    }

    succeeded, shown = watch(api_server, terminal=False)

    assert succeeded
    lines = shown.splitlines()
    assert "does not answer: Service Unavailable. Check the cluster" in lines[1]
    assert lines[2].startswith("eli5 · Completed")


@pytest.mark.parametrize("times", [1, 5, 100])
def test_a_watch_whose_time_is_over_is_asked_for_again_without_a_word(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    # given a run that changes less often than a watch lasts, behind something that ends each at once
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    api_server.answers = {
        PATH: [*[run({})] * times, run(DONE)],
        PATH.rpartition("/")[0]: (200, {"type": "MODIFIED", "object": run({})[1]}),
    }

    succeeded, shown = watch(api_server, terminal=False)

    # then nothing is said of it, and nobody is asked without pause
    assert succeeded
    assert "answer" not in shown
    assert len(pauses) == times
    assert min(pauses) > 1


def test_a_status_of_a_newer_release_is_shown_as_far_as_it_is_known(api_server: ApiServer) -> None:
    api_server.answers = {
        PATH: run(DONE | {"energy": {"joules": 3}, "attempts": [{"number": 1, "job": "j", "gpu": 1}]})
    }
    assert watch(api_server, terminal=False)[0]


def test_a_pipe_gets_the_samples_after_the_last_line(api_server: ApiServer) -> None:
    api_server.answers = {PATH: run(DONE)}

    succeeded, shown = watch(api_server, terminal=False)

    assert succeeded
    assert shown.splitlines() == [
        "eli5 · Completed · perplexity 49.61",
        "“The sky”",
        "  before ▸ qe",
        "  after  ▸ is blue",
    ]


def test_a_run_that_is_not_there_or_not_ours_to_see_is_said_so(api_server: ApiServer) -> None:
    with pytest.raises(LMFineTuneError, match="there is no LMFineTune eli5 in namespace team-a"):
        watch(api_server, terminal=False)

    api_server.answers = {PATH: (403, {"kind": "Status", "reason": "Forbidden"})}
    with pytest.raises(LMFineTuneError, match=r"you may not get lmfinetunes in namespace team-a; .* verbs"):
        watch(api_server, terminal=False)


def test_without_a_cluster_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    with pytest.raises(LMFineTuneError, match=r"no cluster to talk to: .*[^.]\. Set KUBECONFIG or choose"):
        follow("eli5", None, None, Console(file=io.StringIO()))
