"""What other hands do to a run and its objects: edits at the wrong moment, finalizers, deletions that leave orphans."""

from dataclasses import replace

import pytest
from support.results import DONE, stopped

from lmft_api.manifest.validation import parse_spec
from lmft_api.status import LMFineTuneStatus
from lmft_api.wire.run_file import spec_hash
from lmft_operator.domain.facts import run_facts
from lmft_operator.jobs import manifest

MARGIN = 30


def hash_of(world) -> str:
    return spec_hash(manifest.with_defaults(parse_spec(world.spec), world.settings))


def made_before_an_edit(world, **facts):
    """The Job is there, the status was refused for a newer manifest, and that has another seed."""
    world.step()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], spec_hash=hash_of(world), image="mirror/job@sha256:1", **facts)
    world.status = LMFineTuneStatus()
    world.spec["training"] = {"seed": 7}


def test_a_job_of_a_manifest_that_was_changed_meanwhile_is_made_anew(World):
    world = World()
    made_before_an_edit(world)
    world.pod(phase="Running", started=world.now)

    # when the run is looked at, then the Job goes, and nothing is claimed
    decision = world.decide()
    assert (decision.delete_jobs, decision.create) == (("eli5-1",), None)
    assert (decision.status.attempts, decision.status.provenance) == (None, None)
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], deleting=True)
    world.pod(deleted=world.now + 120)
    assert (world.decide().delete_jobs, world.decide().create) == ((), None)
    assert "manifest changed" in world.decide().status.succeeded.message

    # and when its pod has ended, the next one has what the manifest says now
    world.pod(phase="Failed")
    world.later(1)
    assert [plan.name for plan in world.created] == ["eli5-1", "eli5-2"]
    assert (world.status.provenance.seed, world.status.provenance.spec_hash) == (7, hash_of(world))
    assert [attempt.number for attempt in world.status.attempts] == [2]


def test_an_old_pod_that_does_not_end_is_not_waited_for_for_ever(World):
    world = World()
    made_before_an_edit(world, deleting=True)
    world.pod(deleted=world.now + 5)
    assert world.step().create is None
    world.later(5 + MARGIN)
    assert [plan.name for plan in world.created] == ["eli5-1", "eli5-2"]


def test_an_edit_to_nonsense_can_still_be_mended(World):
    world = World()
    made_before_an_edit(world)
    world.problems = ("spec.training.seed: must be a number",)
    assert world.step().delete_jobs == ("eli5-1",)
    world.step()
    assert (world.reason, world.status.attempts) == ("InvalidSpec", None)


def test_an_edit_of_what_may_change_leaves_the_job(World):
    world = World()
    made_before_an_edit(world)
    del world.spec["training"]
    world.spec |= {"maxRetries": 7, "activeDeadlineSeconds": 3600}
    assert world.step().delete_jobs == ()
    # and the image is the one that runs, which a policy of the cluster may have changed
    assert (world.status.provenance.image, world.status.provenance.seed) == ("mirror/job@sha256:1", 42)


def test_other_defaults_of_the_platform_do_not_end_an_attempt_that_the_status_lists(World):
    world = World()
    world.step()
    world.run_pod()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], spec_hash="of-the-defaults-before")
    assert world.step().delete_jobs == ()
    world.end_pod(said=DONE)
    assert world.reason == "Completed"


# ---- finalizers


def test_a_run_that_somebodys_finalizer_holds_trains_no_more(World):
    world = World()
    world.step()
    world.run_pod()
    world.deleting = True
    assert world.step().delete_jobs == ("eli5-1",)
    assert world.step().create is None


def test_a_run_deleted_without_its_jobs_leaves_them_alone(World):
    body = {"metadata": {"namespace": "a", "name": "r", "uid": "u", "resourceVersion": "1", "deletionTimestamp": "x"}}
    facts = run_facts(body | {"metadata": body["metadata"] | {"finalizers": ["orphan"]}})
    assert (facts.deleting, facts.orphans, run_facts(body).orphans) == (True, True, False)
    world = World()
    world.step()
    world.deleting = world.orphans = True
    assert world.step().delete_jobs == ()


# ---- a Job deleted without its pod


def orphaned(world):
    world.step()
    world.run_pod()
    world.jobs.clear()
    world.pod(orphaned=True)


def test_a_pod_without_its_job_is_followed_and_what_stops_it_is_told(World):
    world = World()
    orphaned(world)
    world.step()
    assert (world.reason, "kubectl delete pod pod-1" in world.message) == ("Training", True)
    world.end_pod(said=DONE)
    assert world.reason == "Completed"


@pytest.mark.parametrize("wish", [{"suspend": True}, {"activeDeadlineSeconds": 1}])
def test_a_pod_without_its_job_that_is_to_stop_says_who_can_stop_it(World, wish):
    world = World()
    orphaned(world)
    world.spec |= wish
    world.later(2)
    assert "kubectl delete pod pod-1 stops it" in world.message
    world.pod(deleted=world.now + 120)
    world.step()
    assert "the pod saves a checkpoint and ends" in world.message
    world.end_pod(code=75, said=stopped(7))
    assert world.reason == ("Suspended" if "suspend" in wish else "DeadlineExceeded")
