"""``lmft ls``, ``logs``, ``suspend``, ``wait``, ``open`` and others, before a stand-in for the API server."""

import json
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support.api_double import ApiServer, ended, resource, serving
from support.report_samples import demo_report
from typer.testing import CliRunner

from lmft_job.cli import commands

RUNS = "/apis/lmfinetune.dev/v1alpha1/namespaces/team-a/lmfinetunes"
EVERYWHERE = "/apis/lmfinetune.dev/v1alpha1/lmfinetunes"
PODS = "/api/v1/namespaces/team-a/pods"


@pytest.fixture
def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path, monkeypatch) as server:
        yield server


def lmft(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(commands.app, list(words), **options)


def test_runs_of_a_cluster_are_listed_with_what_came_out(api_server: ApiServer) -> None:
    done = ended(True, "Completed", model="gpt2", progress={"display": "100%"}, results={"perplexity": "49.61"})
    api_server.objects[EVERYWHERE] = {"items": [resource("new"), resource("eli5", done)]}

    told = lmft("ls", "-A", "-l", "lmfinetune.dev/sweep=eli5")
    plain = lmft("ls", "-A", "-o", "json")

    assert told.exit_code == 0, told.output
    head, eli5, new = told.output.splitlines()
    assert head.split() == ["NAMESPACE", "NAME", "MODEL", "STATE", "PROGRESS", "RESULT"]
    assert eli5.split() == ["team-a", "eli5", "gpt2", "Completed", "100%", "perplexity", "49.61"]
    assert new.split() == ["team-a", "new", "Pending"]
    assert "labelSelector=lmfinetune.dev%2Fsweep%3Deli5" in api_server.asked[0][1]
    assert [row["name"] for row in json.loads(plain.output)] == ["eli5", "new"]


def test_runs_with_a_label_are_compared_by_their_reports_without_those_that_have_none(
    api_server: ApiServer, tmp_path: Path
) -> None:
    # given a sweep of the cluster of which two runs have a report, one has none yet, and one's is gone
    report, addresses = demo_report(), {}
    for name, loss in (("low", 3.0), ("high", 4.0)):
        results = report.results.model_copy(update={"eval_loss": loss, "eval_loss_standard_error": 0.01})
        (tmp_path / name).mkdir()
        own = report.model_copy(update={"name": name, "results": results})
        (tmp_path / name / "report.json").write_bytes(own.to_json())
        addresses[name] = f"file://{tmp_path}/{name}/report.html"
    done = [resource(name, ended(True, "Completed", results={"reportURI": uri})) for name, uri in addresses.items()]
    api_server.objects[RUNS] = {"items": [*done, resource("new")]}

    told = lmft("compare", "-l", "lmfinetune.dev/sweep=eli5")
    plain = lmft("compare", "-l", "lmfinetune.dev/sweep=eli5", "-o", "json")

    assert told.exit_code == 0, told.output
    assert "labelSelector=lmfinetune.dev%2Fsweep%3Deli5" in api_server.asked[0][1]
    assert "new has no report yet" in told.stderr
    assert "low has the lowest loss" in " ".join(told.stdout.split())
    assert json.loads(plain.stdout)["best"] == "low"
    assert json.loads(plain.stdout)["runs"] == ["high", "low"]

    # and one whose report is gone is named; fewer than two are nothing to compare
    api_server.objects[RUNS]["items"].append(
        resource("gone", ended(True, "Completed", results={"reportURI": f"file://{tmp_path}/gone/report.html"}))
    )
    gone = lmft("compare", "-l", "lmfinetune.dev/sweep=eli5")
    assert (gone.exit_code, gone.stdout) == (2, "")
    assert f"{tmp_path}/gone" in gone.stderr
    api_server.objects[RUNS]["items"] = [resource("new")]
    assert "name at least two runs" in lmft("compare", "-l", "x=y").stderr


def test_kubectls_plugin_means_the_cluster(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    api_server.objects[RUNS] = {"items": [resource("eli5")]}
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-lmft", "ls"])
    assert lmft("ls").output.splitlines()[1].split() == ["eli5", "Pending"]


def test_runs_of_this_folder_are_listed_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs/default/runs"
    for name in ("begun", "broken", "done"):
        (runs / name).mkdir(parents=True)
    (runs / "begun/run.json").write_text("{}")
    (runs / "broken/report.json").write_text("{")
    (runs / "done/report.json").write_bytes(demo_report().to_json())

    rows = {row["name"]: row["state"] for row in json.loads(lmft("ls", "-o", "json").output)}

    assert sorted(rows.values()) == ["Completed", "Unfinished", "Unreadable"]
    assert rows["begun"] == "Unfinished"


@pytest.mark.parametrize(("command", "wanted", "said"), [("suspend", True, "suspended"), ("resume", False, "resumed")])
def test_a_run_is_suspended_and_resumed(command: str, wanted: bool, said: str, api_server: ApiServer) -> None:
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5")
    told = lmft(command, "lmft/eli5")
    assert told.output == f"team-a/eli5 {said}\n"
    assert api_server.asked[-1] == ("PATCH", f"{RUNS}/eli5", {"spec": {"suspend": wanted}})


def test_a_run_is_deleted_after_a_question(api_server: ApiServer) -> None:
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5")

    refused = lmft("cancel", "eli5", input="n\n")
    assert refused.exit_code == 1
    assert not [method for method, *_ in api_server.asked if method == "DELETE"]

    done = lmft("cancel", "eli5", "--yes")
    assert done.output == "team-a/eli5 deleted; what is in storage stays\n"
    assert api_server.asked[-1][:2] == ("DELETE", f"{RUNS}/eli5")


@pytest.mark.parametrize(
    ("status", "code"),
    [(ended(True, "Completed"), 0), (ended(False, "Diverged"), 1), ({}, 124)],
)
def test_waiting_ends_on_success_on_failure_and_when_the_time_is_over(
    status: Any, code: int, api_server: ApiServer
) -> None:
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", status)
    told = lmft("wait", "eli5", "--timeout", "0")
    assert told.exit_code == code
    assert told.output.startswith("team-a/eli5 ")


def test_the_log_is_that_of_the_newest_attempts_newest_pod(api_server: ApiServer) -> None:
    attempts = [{"number": number, "job": f"eli5-{number}"} for number in (1, 2)]
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", {"attempts": attempts})
    pods = [
        {
            "metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:0{at}:00Z"},
            "spec": {"containers": [{"name": "job"}, {"name": "sidecar"}]},
        }
        for at, name in enumerate(("older", "newer"))
    ]
    api_server.objects[PODS] = {"items": pods}
    api_server.objects[f"{PODS}/newer/log"] = b"step 1\n\x1b[2Jstep 2"

    told = lmft("logs", "eli5", "--tail", "5")

    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0] == "step 1"
    assert "\x1b" not in told.output
    assert "labelSelector=batch.kubernetes.io%2Fjob-name%3Deli5-2" in api_server.asked[1][1]
    assert "container=job" in api_server.asked[2][1]
    assert "tailLines=5" in api_server.asked[2][1]


@pytest.mark.parametrize("words", [["wait", "no"], ["logs", "no"], ["suspend", "no"], ["cancel", "no", "-y"]], ids=str)
def test_a_run_that_there_is_not_is_told_in_one_line(words: list[str], api_server: ApiServer) -> None:
    told = lmft(*words)
    assert told.exit_code == 2
    assert told.output == "there is no LMFineTune no in namespace team-a. Look with: lmft ls -A\n"


def test_a_report_is_opened_from_a_folder_by_name_and_from_a_clusters_storage(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    folder = tmp_path / "runs/default/runs/mine"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<!doctype html>")
    uri = {"results": {"reportURI": f"{folder.as_uri()}/report.html"}}
    api_server.objects[f"{RUNS}/eli5"] = resource("eli5", uri)

    assert lmft("open", "mine").output == f"{folder}/report.html\n"
    assert "read with your own settings" in lmft("open", "eli5", "-n", "team-a").output
    assert lmft("open", "nothing").exit_code == 2

    assert opened[0] == f"{folder.as_uri()}/report.html"
    assert Path(opened[1].removeprefix("file://")).read_text() == "<!doctype html>"
