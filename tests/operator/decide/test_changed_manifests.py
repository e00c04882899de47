"""Until an attempt trains the manifest may change, and what has changed is prepared again."""

import hashlib
import json
from dataclasses import replace

import pytest
from support.results import DONE

from lmft_api.manifest.validation import parse_spec
from lmft_api.reasons import ExitCode, Reason
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage, spec_hash
from lmft_operator.jobs import manifest

GPU = {"resources": {"gpusPerNode": 1}}
PREPARED = Result(reason=Reason.COMPLETED, message="prepared")
TOO_LARGE = Result(reason=Reason.ACCELERATOR_OUT_OF_MEMORY, message="one row needs 90 GiB")


def hash_of(world) -> str:
    return spec_hash(manifest.with_defaults(parse_spec(world.spec), world.settings))


def change(world, **spec):
    world.spec = world.spec | spec
    world.generation += 1
    return world.step()


def preparing(World, **spec):
    world = World(**GPU, **spec)
    world.step()
    world.run_pod()
    assert world.stages == [Stage.PREPARE]
    assert world.status.attempts[0].spec_hash == world.status.provenance.spec_hash == hash_of(world)
    return world


def test_a_run_that_was_refused_before_training_is_prepared_again_once_it_is_changed(World):
    world = preparing(World)
    world.end_pod(code=ExitCode.ACCELERATOR_MEMORY, said=TOO_LARGE)
    assert (world.succeeded, world.reason) == ("False", "AcceleratorOutOfMemory")
    assert not world.status.usage.gpu_seconds

    change(world, training={"gradientCheckpointing": True})

    assert world.stages == [Stage.PREPARE, Stage.PREPARE]
    assert (world.succeeded, world.reason) == ("Unknown", "Pending")
    assert world.status.provenance.spec_hash == hash_of(world)
    world.run_pod(2)
    world.end_pod(2, said=PREPARED)
    assert world.stages == [Stage.PREPARE, Stage.PREPARE, Stage.TRAIN]
    world.run_pod(3)
    world.end_pod(3, said=DONE)
    assert (world.succeeded, world.reason) == ("True", "Completed")


def test_an_unchanged_manifest_stays_refused(World):
    world = preparing(World)
    world.end_pod(code=ExitCode.ACCELERATOR_MEMORY, said=TOO_LARGE)

    world.generation += 1
    world.later(1000)

    assert (world.stages, world.reason) == ([Stage.PREPARE], "AcceleratorOutOfMemory")


def test_fields_of_the_runs_life_do_not_prepare_again(World):
    world = preparing(World)
    change(world, maxRetries=5)
    world.end_pod(said=PREPARED)

    assert world.stages == [Stage.PREPARE, Stage.TRAIN]


def test_a_number_of_devices_does_not_prepare_again(World):
    world = preparing(World)
    change(world, resources={"gpusPerNode": 4})
    world.end_pod(said=PREPARED)

    assert [(plan.stage, plan.gpus) for plan in world.created] == [(Stage.PREPARE, 0), (Stage.TRAIN, 4)]


def test_an_upgrade_from_a_release_that_hashed_the_number_of_gpus_prepares_and_trains_on(World):
    # given a preparation that such a release began, with its hash in the status
    world = preparing(World)
    body = parse_spec(world.spec).to_json()
    earlier = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert earlier != hash_of(world)
    first = world.status.attempts[0].model_copy(update={"spec_hash": earlier})
    world.status = world.status.model_copy(update={"attempts": [first]})

    # when this release follows it, then it is not stopped, and training follows
    world.step()
    assert (world.reason, list(world.jobs)) == ("Preparing", ["eli5-1-prepare"])
    world.end_pod(said=PREPARED)
    assert world.stages == [Stage.PREPARE, Stage.TRAIN]


def test_a_preparation_of_the_manifest_as_it_was_is_stopped(World):
    world = preparing(World)

    decision = change(world, training={"epochs": 1})

    assert decision.delete_jobs == ("eli5-1-prepare",)
    assert (world.reason, world.message) == ("Preparing", "The manifest has changed, and is prepared again.")
    world.end_pod(code=ExitCode.INTERRUPTED, said=Result(reason=Reason.INTERRUPTED, message="stopped"))
    world.pod(phase="Failed", gone=True)
    world.later(60)
    assert world.stages == [Stage.PREPARE, Stage.PREPARE]
    assert world.status.failures is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, PREPARED),
        (ExitCode.ACCELERATOR_MEMORY, TOO_LARGE),
        (ExitCode.UNAVAILABLE, Result(reason=Reason.STORAGE_UNAVAILABLE, message="down")),
    ],
)
def test_whatever_comes_of_the_manifest_as_it_was_does_not_count(World, code, said):
    world = preparing(World)
    world.spec = world.spec | {"training": {"epochs": 1}}
    world.generation += 1

    world.end_pod(code=code, said=said)
    world.later(60)

    assert world.stages == [Stage.PREPARE, Stage.PREPARE]
    assert world.status.failures is None
    assert world.succeeded == "Unknown"


def test_a_change_that_is_invalid_waits_for_another_and_the_first_manifest_will_do(World):
    world = preparing(World)
    world.end_pod(code=ExitCode.ACCELERATOR_MEMORY, said=TOO_LARGE)
    before = world.spec
    world.problems = ("spec.dataset.blockSize: must be less",)
    change(world, dataset={"builtin": "PythonDocs", "blockSize": 64})
    assert (world.succeeded, world.reason) == ("False", "InvalidSpec")

    world.problems = ()
    world.spec = before
    change(world, training={"epochs": 2})

    assert world.stages == [Stage.PREPARE, Stage.PREPARE]


def test_the_model_column_follows_the_manifest(World):
    world = preparing(World)
    world.end_pod(code=ExitCode.ACCELERATOR_MEMORY, said=TOO_LARGE)

    change(world, model={"name": "gpt2"})

    assert world.status.model == "gpt2"


def test_once_an_attempt_trains_nothing_is_prepared_again(World):
    world = preparing(World)
    world.end_pod(said=PREPARED)
    settled = world.status.provenance
    world.run_pod(2)

    change(world, training={"epochs": 1})  # the API server would refuse it
    world.end_pod(2, code=1, said="boom")
    world.later(3600)

    assert world.stages == [Stage.PREPARE, Stage.TRAIN, Stage.TRAIN]
    assert world.status.provenance == settled


def test_a_training_job_of_the_manifest_as_it_was_is_replaced_where_the_status_does_not_list_it(World):
    world = preparing(World)
    listed = world.status
    world.end_pod(said=PREPARED)
    before = hash_of(world)
    assert world.stages == [Stage.PREPARE, Stage.TRAIN]
    closed = listed.attempts[0].model_copy(update={"end_time": "2027-01-15T08:00:00Z", "reason": "Completed"})
    world.status = listed.model_copy(update={"attempts": [closed]})
    world.jobs["eli5-2"] = replace(world.jobs["eli5-2"], spec_hash=before)

    decision = change(world, training={"epochs": 1})

    assert decision.delete_jobs == ("eli5-2",)
    world.later(60)
    assert world.stages == [Stage.PREPARE, Stage.TRAIN, Stage.PREPARE]
