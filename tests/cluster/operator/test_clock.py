"""The clock of the operator's machine is set by a day, forward and back, while runs are under way."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import Api, Run
from cluster.operator.reporting import Reporting
from support.results import DONE

DAY = 86_400
JUMPING = Path(__file__).with_name("jumping")
SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the clock of the processes that are started from here on, by seconds."""
    file = tmp_path / "clock"
    file.write_text("0")
    monkeypatch.setenv("PYTHONPATH", str(JUMPING))
    monkeypatch.setenv("LMFT_TEST_CLOCK", str(file))

    def set_to(seconds: int) -> None:
        new = file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(file)

    return set_to


@pytest.fixture
def reporting(api: Api, tmp_path: Path, set_clock: SetClock) -> Iterator[Reporting]:
    found = Reporting.start(tmp_path, api.kubeconfig, SETTINGS, patchSeconds=1, staleSeconds=600)
    yield found
    if found.operator.alive():
        found.operator.stop()
    assert "Traceback" not in found.operator.log.read_text()


def test_a_day_forward_and_back_deletes_nothing_and_judges_no_attempt(
    reporting: Reporting, api: Api, set_clock: SetClock
) -> None:
    # given a run that trains under a deadline, and one that ended and is to be deleted in an hour
    namespace = api.namespace()
    trains = Run(api, namespace, "trains", {"activeDeadlineSeconds": 7200}).create()
    ended = Run(api, namespace, "ended", {"ttlSecondsAfterFinished": 3600}).create()
    ended.ends(said=DONE)
    ended.wait("Completed")
    trains.runs()
    trains.wait("Training")
    token = trains.token()
    for number, jump in enumerate([DAY, -DAY, 0, DAY], start=2):
        # when the clock is set, and all runs are looked at
        set_clock(jump)
        for run in (trains, ended):
            api.patch(run.path, {"metadata": {"annotations": {"looked": str(number)}}})
        late = Run(api, namespace, f"late-{number}").create()
        late.runs()
        late.wait("Training")
        # then each is where it was, and what pods report shows at once
        reporting.told(token, current_step=number)
        eventually(lambda n=number: trains.status().get("progress", {}).get("step") == n, f"step {number}", 15)
        assert trains.reason() == "Training"
        assert ended.reason() == "Completed"
        for run in (trains, ended, late):
            assert [job["metadata"]["labels"]["lmfinetune.dev/attempt"] for job in run.jobs()] == ["1"]
            assert not any("deletionTimestamp" in job["metadata"] for job in run.jobs())
        late.ends(said=DONE)
        late.wait("Completed")
        assert written(late.status()["completionTime"]) < 120
        assert late.status()["usage"]["seconds"] < 120
    trains.ends(said=DONE)
    status = trains.wait("Completed")
    assert [attempt["number"] for attempt in status["attempts"]] == [1]


def test_an_operator_that_starts_with_a_wrong_clock_goes_by_the_api_servers(
    reporting: Reporting, api: Api, set_clock: SetClock
) -> None:
    namespace = api.namespace()
    trains = Run(api, namespace, "trains", {"activeDeadlineSeconds": 7200}).create()
    ended = Run(api, namespace, "ended", {"ttlSecondsAfterFinished": 3600}).create()
    trains.runs()
    ended.ends(said=DONE)
    trains.wait("Training")
    ended.wait("Completed")
    set_clock(DAY)
    reporting.operator.restart()
    late = Run(api, namespace, "late").create()
    late.runs()
    late.wait("Training")
    assert (trains.reason(), ended.reason()) == ("Training", "Completed")
    trains.ends(said=DONE)
    trains.wait("Completed")
    assert written(trains.status()["completionTime"]) < 120


def written(time: str) -> float:
    """How far a time of a status is from ours, seconds."""
    return abs((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())
