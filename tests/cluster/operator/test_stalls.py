"""A run that stops reporting: said after a bounded time, never killed for it, and over with the next report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import Api, Run
from cluster.operator.reporting import Reporting
from support.results import DONE


@pytest.fixture
def impatient(api: Api, tmp_path: Path) -> Iterator[Reporting]:
    """An operator that soon calls a run stalled."""
    reporting = Reporting.start(tmp_path, api.kubeconfig, SETTINGS, patchSeconds=1, staleSeconds=4)
    yield reporting
    reporting.operator.stop()


def test_a_run_that_stops_reporting_is_stalled_until_it_reports_again(api: Api, impatient: Reporting) -> None:
    run = Run(api, api.namespace()).create()
    run.runs()
    token = run.token()
    impatient.told(token)
    run.wait("Stalled")
    assert "has not reported since" in run.condition()["message"]
    assert run.condition()["status"] == "Unknown"
    # It is not killed, and a restarted operator knows it still.
    assert [job["metadata"]["name"] for job in run.jobs()] == ["eli5-1"]
    impatient.operator.restart()
    assert run.reason() == "Stalled"
    impatient.told(token, current_step=5)
    run.wait("Training")
    assert run.status()["progress"]["step"] == 5

    def events() -> list[str]:
        found = api.items(f"/api/v1/namespaces/{run.namespace}/events")
        return [e["reason"] for e in found if e["involvedObject"]["kind"] == "LMFineTune"]

    assert "Stalled" in eventually(events, "Events")


def test_a_run_whose_reports_stop_for_good_still_ends_with_its_result(api: Api, impatient: Reporting) -> None:
    # given a certificate that Helm made anew, under an authority that the running pod does not trust
    run = Run(api, api.namespace()).create()
    run.runs()
    impatient.told(run.token())
    run.wait("Stalled")
    run.ends(said=DONE)
    assert run.wait("Completed")["results"]["perplexity"] == "49.6"
