"""What releases left in a cluster, read by this operator: their runs are taken on where they were."""

import json
from typing import Any

import pytest
from support import release
from support.release import Release

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

RELEASES = pytest.mark.parametrize("left", release.RELEASES, ids=[one.name for one in release.RELEASES])


@RELEASES
@pytest.mark.parametrize("name", release.RUNS)
def test_its_run_files_and_statuses_are_read_whole(left: Release, name: str) -> None:
    status = left.manifest(name)["status"]
    assert contains(LMFineTuneStatus.parse(status).to_json(), status)
    for attempt in range(1, len(left.jobs(name)) + 1):
        text = left.run_file(name, attempt)
        assert contains(RunFile.model_validate_json(text).to_json(), json.loads(text))


@RELEASES
@pytest.mark.parametrize("name", release.RUNS)
def test_its_termination_messages_are_read_whole(left: Release, name: str) -> None:
    for message in left.termination_messages(name):
        result = decode(message)
        assert result is not None
        assert contains(result.to_json(), json.loads(message))


@RELEASES
def test_its_reports_of_progress_are_read_whole(left: Release) -> None:
    sent = left.reports()
    assert len(sent) > 3
    for body in sent:
        assert contains(ProgressMessage.model_validate(body).to_json(), body)


@RELEASES
def test_its_run_is_followed_and_the_next_attempt_has_the_next_number(left: Release) -> None:
    # given the run with its fourth Job, whose pod has not begun
    jobs, pods = left.jobs("run"), left.pods("run")
    decision = look(left.manifest("run"), jobs, pods)
    assert (decision.create, decision.delete_jobs, decision.status.reason) == (None, (), "Pending")
    # when that Job was lost with the cluster's state, and the status does not list it either
    whole = left.manifest("run")
    whole["status"]["attempts"].pop()
    decision = look(whole, jobs[:3], pods)
    # then it is made again: the stage that comes next, under the name that it had
    assert decision.create is not None
    assert (decision.create.attempt, decision.create.stage) == (4, Stage.TRAIN)
    assert decision.create.name == jobs[3]["metadata"]["name"]


@RELEASES
def test_its_finished_run_stays_as_it_is(left: Release) -> None:
    decision = look(left.manifest("twin"), left.jobs("twin"), left.pods("twin"))
    assert (decision.create, decision.delete_jobs, decision.delete_run) == (None, (), False)
    whole, before = decision.status.to_json(), left.manifest("twin")["status"]
    # A condition that came later is filled in.
    assert [condition["type"] for condition in whole["conditions"]] == ["Succeeded", "Finished"]
    whole["conditions"] = whole["conditions"][: len(before["conditions"])]
    assert contains(whole, before)


def look(run: dict[str, Any], jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> Decision:
    """What is decided about a run a minute after the release stopped looking at it."""
    cache, settings = Cache(), parse("{}")
    for take, bodies in ((cache.run_seen, [run]), (cache.job_seen, jobs), (cache.pod_seen, pods)):
        for body in bodies:
            take(body)
    last = seconds(pods[-1]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"])
    seen = cache.observe(Key("team", run["metadata"]["name"]), (last or 0.0) + 60)
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
