"""``lmft ui``: who may read, and what is shown."""

import html
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_double import ended, resource, serving
from support.report_samples import demo_report
from typer.testing import CliRunner

from lmft_api.wire.layout import METRICS, REPORT, RUN_MARKER
from lmft_job.cli import commands
from lmft_job.cli.ui.server import COOKIE, Server
from lmft_job.cli.ui.source import ClusterRuns, StoredRuns, curve_of

HOSTILE = "<script>alert(1)</script>\"' onload=x \x1b[31m{{ 7*7 }}"
STEP = {"step": 1, "epoch": 0.1, "loss": 7.5, "learningRate": 2e-5, "gradientNorm": 1.25, "tokensPerSecond": 900.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two namespaces: three finished, of which one has a hostile report, one in training, one broken."""
    top = tmp_path_factory.mktemp("output")

    def place(namespace: str, name: str) -> Path:
        run = top / namespace / "runs" / name
        run.mkdir(parents=True)
        (run / RUN_MARKER).write_text("{}")
        return run

    report = demo_report()
    (place("default", "quickstart") / REPORT).write_bytes(report.to_json())
    samples = [report.results.samples[0].model_copy(update={"after": " is used to bind the module of the name"})]
    better = report.results.model_copy(update={"perplexity": 80.0, "samples": samples})
    other = report.model_copy(update={"name": "lr5", "namespace": "default", "results": better})
    (place("default", "lr5") / REPORT).write_bytes(other.to_json())
    hostile = report.model_copy(
        update={"name": HOSTILE, "model": report.model.model_copy(update={"name": HOSTILE}), "namespace": HOSTILE}
    )
    (place("team-b", "hostile") / REPORT).write_bytes(hostile.to_json())
    training = place("default", "training")
    lines = [STEP, STEP | {"step": 2, "loss": 7.25}, {"step": 2, "epoch": 0.2, "evaluation": {"evalLoss": 7.0}}]
    (training / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    (place("default", "broken") / REPORT).write_text("[1]")
    (top / "default" / "runs" / "quickstart" / "secret.txt").write_text("not to be read")
    return top


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(StoredRuns(folder.as_uri())) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def ask(
    server: Server, path: str, *, cookie: str | None = None, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer, for somebody who has the token unless another cookie is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    headers = {"Host": host or f"127.0.0.1:{server.server_port}"}
    headers |= {"Cookie": f"{COOKIE}={server.token}" if cookie is None else cookie}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def test_the_token_of_the_address_becomes_a_cookie_that_other_sites_do_not_send(server: Server) -> None:
    status, headers, _ = ask(server, server.address.partition(str(server.server_port))[2], cookie="")

    deep = ask(server, f"//evil.example/run?token={server.token}", cookie="")

    assert status == deep[0] == 303
    assert headers["Location"] == "/"
    assert deep[1]["Location"] == "/evil.example/run"
    assert headers["Set-Cookie"] == f"{COOKIE}={server.token}; HttpOnly; SameSite=Strict; Path=/"
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/run/default/quickstart", "/compare?run=default/lr5", "/?token=", "/?token=x"])
@pytest.mark.parametrize("cookie", ["", f"{COOKIE}=", f"{COOKIE}=x", "\x01;;==", f"{COOKIE}=ä"])
def test_nobody_reads_without_the_token(server: Server, path: str, cookie: str) -> None:
    status, _, text = ask(server, path, cookie=cookie.encode().decode("latin-1"))

    assert status == 403
    assert "quickstart" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"])
def test_a_request_for_another_host_is_refused_even_with_the_token(server: Server, host: str) -> None:
    status, _, text = ask(server, "/", host=host.format(port=server.server_port))

    assert status == 421
    assert "quickstart" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(server: Server, method: str) -> None:
    assert ask(server, "/run/default/quickstart", method=method)[0] == 501


def test_the_list_has_every_run_with_what_came_out(server: Server) -> None:
    status, headers, text = ask(server, "/")

    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert "5 runs" in text
    assert 'href="/run/default/quickstart"' in text
    assert "perplexity 88.30" in text
    assert text.count("Completed") == 3
    assert "Unfinished" in text
    assert "Unreadable" in text


def test_a_finished_run_is_its_report_written_anew(server: Server) -> None:
    status, _, text = ask(server, "/run/default/quickstart")

    assert status == 200
    assert "Perplexity fell from 7,912 to 88.30" in text


def test_a_run_in_training_shows_its_steps_so_far_and_reloads(server: Server) -> None:
    status, _, text = ask(server, "/run/default/training")

    assert status == 200
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "Loss while training" in text
    assert "Training loss: from 7.500 at step 1 to 7.250 at step 2" in text


def test_chosen_runs_are_compared(server: Server) -> None:
    status, _, text = ask(server, "/compare?run=default/quickstart&run=default/lr5&run=default/training")

    assert status == 200
    assert "lr5" in text
    assert "80.00" in text
    assert "is used to bind the name of the module in the local namespace" in text  # the first run's answer, unmarked
    assert "<ins>module</ins> of the <ins>name</ins>" in text
    assert ask(server, "/compare?run=default/quickstart")[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        "/run/default/none",
        "/run/default",
        "/run/default/quickstart/secret.txt",
        "/run/default/..%2f..%2fdefault%2fruns%2fquickstart",
        "/run/../default",
        "/run/%2e%2e/runs",
        "/run/default/%00",
        "/secret.txt",
        "//etc/passwd",
        "/run//",
    ],
)
def test_only_runs_are_found(server: Server, path: str) -> None:
    status, _, text = ask(server, path)

    assert status == 404
    assert "not to be read" not in text


def test_what_reports_say_never_becomes_markup(server: Server) -> None:
    for path in ("/", "/run/team-b/hostile", "/compare?run=team-b/hostile&run=default/lr5"):
        status, _, text = ask(server, path)

        assert status == 200
        assert "alert(1)</script>" not in text
        assert text.count("<script>") == 1
        assert "\x1b" not in text
        assert "script-src 'sha256-" in html.unescape(text)


def test_a_storage_that_fails_is_told_in_words(tmp_path: Path) -> None:
    source = StoredRuns("s3://no-such-bucket-of-anybody")

    def refuse() -> None:
        from lmft_job.errors import InvalidError

        raise InvalidError(["s3://no-such-bucket-of-anybody: the bucket does not exist"])

    source.rows = refuse  # type: ignore[method-assign, assignment]
    with Server(source) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        status, _, text = ask(server, "/")
        server.shutdown()

    assert status == 502
    assert "the bucket does not exist" in text


def test_runs_of_a_cluster_show_their_status_and_no_file_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    own = f"{(folder / 'default/runs/quickstart').as_uri()}/report.html"
    samples = [{"prompt": HOSTILE, "before": "a", "after": HOSTILE}]
    done = ended(True, "Completed", results={"perplexity": "49.61", "reportURI": own, "samples": samples})
    with serving(tmp_path, monkeypatch) as api:
        api.objects["/apis/lmfinetune.dev/v1alpha1/lmfinetunes"] = {"items": [resource("eli5", done), resource("new")]}
        api.objects["/apis/lmfinetune.dev/v1alpha1/namespaces/team-a/lmfinetunes/eli5"] = resource("eli5", done)
        with Server(ClusterRuns(None, None, everywhere=True)) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            listed, run = ask(server, "/")[2], ask(server, "/run/team-a/eli5")[2]
            missing = ask(server, "/run/team-a/none")
            server.shutdown()

    assert 'href="/run/team-a/eli5"' in listed
    assert "perplexity 49.61" in listed
    assert "Pending" in listed
    assert "49.61" in run
    assert "what it says" in run
    assert "on a volume of the cluster" in run
    assert "7,912" not in run  # of the report at that path of this machine
    assert "alert(1)</script>" not in run
    assert missing[0] == 502
    assert "there is no LMFineTune none in namespace team-a" in missing[2]


def test_lines_of_metrics_that_cannot_be_read_are_passed_over() -> None:
    lines = [json.dumps(STEP), "", "null", "[]", '{"step": "x", "loss": 1}', '{"step": 4, "loss": null}', "[" * 10_000]

    curve = curve_of("\n".join(lines).encode() + b"\xff")

    assert [point.step for point in curve] == [1, 4]
    assert curve[0].learning_rate == 2e-5


def test_a_folder_that_is_not_there_and_a_port_that_is_taken_are_told(server: Server, folder: Path) -> None:
    missing = CliRunner().invoke(commands.app, ["ui", str(folder / "none"), "--no-browser"])
    taken = CliRunner().invoke(commands.app, ["ui", str(folder), "--no-browser", "--port", str(server.server_port)])

    assert missing.exit_code == taken.exit_code == 2
    assert "no such folder; name the one that holds <namespace>/runs" in missing.output
    assert "choose another with --port" in taken.output
