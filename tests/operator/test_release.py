"""What release 0.1 left in a cluster, read by this operator: its runs are taken on where they were."""

import json
from typing import Any

import pytest
import release

from lmft_api.manifest.validation import parse_spec
from lmft_api.status import LMFineTuneStatus
from lmft_api.text.times import seconds
from lmft_api.wire.progress import ProgressMessage
from lmft_api.wire.result import decode
from lmft_api.wire.run_file import RunFile, Stage
from lmft_operator.decide.draft import Decision
from lmft_operator.decide.run import decide
from lmft_operator.domain.facts import Key
from lmft_operator.jobs import manifest
from lmft_operator.settings import parse
from lmft_operator.watch.cache import Cache


@pytest.mark.parametrize("name", release.RUNS)
def test_its_run_files_and_statuses_are_read_whole(name: str) -> None:
    status = release.manifest(name)["status"]
    assert contains(LMFineTuneStatus.parse(status).to_json(), status)
    for attempt in range(1, len(release.jobs(name)) + 1):
        text = release.run_file(name, attempt)
        assert contains(RunFile.model_validate_json(text).to_json(), json.loads(text))


@pytest.mark.parametrize("name", release.RUNS)
def test_its_termination_messages_are_read_whole(name: str) -> None:
    for message in release.termination_messages(name):
        result = decode(message)
        assert result is not None
        assert contains(result.to_json(), json.loads(message))


def test_its_reports_of_progress_are_read_whole() -> None:
    sent = release.reports()
    assert len(sent) > 3
    for body in sent:
        assert contains(ProgressMessage.model_validate(body).to_json(), body)


def test_its_run_is_followed_and_the_next_attempt_has_the_next_number() -> None:
    # given the run with its fourth Job, whose pod has not begun
    jobs, pods = release.jobs("run"), release.pods("run")
    decision = look("run", jobs, pods)
    assert (decision.create, decision.delete_jobs, decision.status.reason) == (None, (), "Pending")
    # when that Job was lost with the cluster's state, and the status does not list it either
    whole = release.manifest("run")
    whole["status"]["attempts"].pop()
    decision = look("run", jobs[:3], pods, whole)
    # then it is made again: the stage that comes next, under the name that it had
    assert decision.create is not None
    assert (decision.create.attempt, decision.create.stage) == (4, Stage.TRAIN)
    assert decision.create.name == jobs[3]["metadata"]["name"]


def test_its_finished_run_stays_as_it_is() -> None:
    decision = look("twin", release.jobs("twin"), release.pods("twin"))
    assert (decision.create, decision.delete_jobs, decision.delete_run) == (None, (), False)
    whole = decision.status.to_json()
    # A condition that came later is filled in.
    assert [condition["type"] for condition in whole["conditions"]] == ["Succeeded", "Finished"]
    whole["conditions"].pop()
    assert contains(whole, release.manifest("twin")["status"])


def look(
    name: str, jobs: list[dict[str, Any]], pods: list[dict[str, Any]], run: dict[str, Any] | None = None
) -> Decision:
    """What is decided about a run a minute after the release stopped looking at it."""
    cache, settings, run = Cache(), parse("{}"), run or release.manifest(name)
    for take, bodies in ((cache.run_seen, [run]), (cache.job_seen, jobs), (cache.pod_seen, pods)):
        for body in bodies:
            take(body)
    last = seconds(pods[-1]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"])
    seen = cache.observe(Key("team", name), (last or 0.0) + 60)
    assert seen is not None
    assert (len(seen.jobs), len(seen.pods)) == (len(jobs), len(pods))
    return decide(seen, manifest.with_defaults(parse_spec(run["spec"]), settings), (), settings)


def contains(whole: Any, part: Any) -> bool:
    """Whether all of one JSON value is in another; what is new may stand beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(contains(whole.get(key), value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)
