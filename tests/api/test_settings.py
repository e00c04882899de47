"""Defaults: the tutorials' numbers by task, and what a manifest says instead."""

import hashlib
import json
from typing import Any

import pytest

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import resolve
from lmft_api.wire.layout import run_id
from lmft_api.wire.run_file import MUTABLE_FIELDS, RunFile, same_spec, spec_hash

PLAIN: dict[str, Any] = {"model": {"name": "gpt2"}, "dataset": {"name": "a/b"}}


def spec(**fields: Any) -> LMFineTuneSpec:
    return LMFineTuneSpec.parse(PLAIN | fields)


@pytest.mark.parametrize(
    ("name", "causal", "masked", "classification"),
    [
        ("dataset.split", "train", "train", "train"),
        ("dataset.text_field", "text", "text", "text"),
        ("dataset.label_field", None, None, "label"),
        ("dataset.test_percent", 20, 20, 20),
        ("dataset.block_size", 128, 128, None),
        ("dataset.mask_probability", None, 0.15, None),
        ("training.epochs", 3, 3, 2),
        ("training.max_steps", None, None, None),
        ("training.learning_rate", 2e-5, 2e-5, 2e-5),
        ("training.weight_decay", 0.01, 0.01, 0.0),
        ("training.per_device_batch_size", 8, 8, 8),
        ("training.gradient_accumulation_steps", 1, 1, 1),
        ("training.warmup_percent", 0, 0, 0),
        ("training.scheduler", "Linear", "Linear", "Linear"),
        ("training.optimizer", "AdamW", "AdamW", "AdamW"),
        ("training.precision", "Auto", "Auto", "Auto"),
        ("training.gradient_checkpointing", None, None, None),
        ("training.max_grad_norm", 1.0, 1.0, 1.0),
        ("training.seed", 42, 42, 42),
        ("training.watchdog_seconds", 1800, 1800, 1800),
        ("evaluation.every_steps", None, None, None),
        ("checkpoint.every_minutes", 10, 10, 10),
        ("checkpoint.keep", 2, 2, 2),
        ("sample.max_new_tokens", 100, 100, 100),
        ("sample.top_k", 50, 3, 50),
        ("sample.top_p", 0.95, 0.95, 0.95),
        ("output.weights", "Last", "Last", "Last"),
        ("output.merge", None, None, None),
        ("training.quantization", None, None, None),
        ("resources.gpus", 0, 0, 0),
        ("resources.nodes", None, None, None),
        ("training.batch_size", None, None, None),
        ("training.parallelism", "Auto", "Auto", "Auto"),
    ],
)
def test_defaults_are_the_tutorials_numbers(name: str, causal: Any, masked: Any, classification: Any):
    for task, wanted in (("CausalLM", causal), ("MaskedLM", masked), ("SequenceClassification", classification)):
        assert resolve(spec(task=task)).flat().get(name) == wanted, task


@pytest.mark.parametrize(
    ("given", "name", "wanted"),
    [
        ({"dataset": {"builtin": "PythonDocs"}}, "dataset.text_field", "answers.text"),
        ({"dataset": {"name": "a", "evalSplit": "test"}}, "dataset.test_percent", None),
        ({"dataset": {"name": "a", "blockSize": 64}}, "dataset.block_size", 64),
        ({"training": {"maxSteps": 7}}, "training.epochs", None),
        ({"training": {"maxSteps": 7}}, "training.max_steps", 7),
        ({"training": {"learningRate": "1e-3"}}, "training.learning_rate", 1e-3),
        ({"training": {"weightDecay": "0"}}, "training.weight_decay", 0.0),
        ({"training": {"seed": 0}}, "training.seed", 0),
        ({"training": {"warmupPercent": 0}}, "training.warmup_percent", 0),
        ({"training": {"callbacks": ["a.B"]}}, "training.callbacks", ["a.B"]),
        ({"checkpoint": {"everySteps": 5, "keep": 1}}, "checkpoint.every_steps", 5),
        ({"sample": {"prompts": ["x"], "topP": "1"}}, "sample.top_p", 1.0),
        ({"task": "MaskedLM", "sample": {"topK": 5}}, "sample.top_k", 5),
        ({"resources": {"gpusPerNode": 1}}, "resources.gpus", 1),
        ({"resources": {"nodes": 2}}, "resources.nodes", 2),
        ({"training": {"batchSize": 512}}, "training.batch_size", 512),
        ({"training": {"parallelism": "FSDP"}}, "training.parallelism", "FSDP"),
        (
            {"output": {"uri": "s3://abc", "pushToHub": {"repository": "a/b"}}, "hubTokenSecretRef": {"name": "h"}},
            "output.push_to_hub",
            "a/b",
        ),
    ],
)
def test_what_the_manifest_says_wins(given: dict[str, Any], name: str, wanted: Any):
    assert resolve(spec(**given)).flat().get(name) == wanted


def test_the_report_lists_where_the_data_comes_from():
    flat = resolve(spec(dataset={"files": ["s3://abc/d"], "format": "text"})).flat()

    assert (flat["model.name"], flat["dataset.files"], flat["dataset.format"]) == ("gpt2", ["s3://abc/d"], "text")


def test_the_hash_of_a_spec_ignores_what_may_change_and_sees_what_may_not():
    changes = {"suspend": True, "ttlSecondsAfterFinished": 1, "activeDeadlineSeconds": 1, "maxRetries": 1}
    changes["reportTo"] = {"tensorBoard": True}

    assert set(changes) == set(MUTABLE_FIELDS)
    assert spec_hash(spec(**changes)) == spec_hash(spec())
    assert spec_hash(spec(training={"seed": 1})) != spec_hash(spec())
    assert spec_hash(LMFineTuneSpec.parse(dict(reversed(PLAIN.items())))) == spec_hash(spec())


@pytest.mark.parametrize(
    "resources",
    [{}, {"nodes": 2}, {"gpusPerNode": 1}, {"nodes": 4, "gpusPerNode": 8, "elastic": {"minNodes": 2}}],
    ids=str,
)
def test_the_hash_of_a_spec_ignores_the_number_of_devices(resources: dict[str, Any]):
    assert spec_hash(spec(resources=resources)) == spec_hash(spec())
    assert spec_hash(spec(resources=resources | {"cpu": "2"})) == spec_hash(spec(resources={"cpu": "2"}))
    assert spec_hash(spec(resources={"cpu": "2"})) != spec_hash(spec())


def hash_of_a_release_of_one_device(body: dict[str, Any]) -> str:
    kept = {name: value for name, value in body.items() if name not in MUTABLE_FIELDS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize("resources", [None, {}, {"gpusPerNode": 1}, {"nodes": 1, "gpusPerNode": 0}, {"nodes": 1}])
@pytest.mark.parametrize("more", [{}, {"cpu": "2"}])
def test_a_hash_of_a_release_that_knew_one_device_is_recognised(resources: Any, more: dict[str, str]):
    # given the hash that such a release stored, with all of resources in it
    kept = {} if resources is None else more
    given = spec() if resources is None else spec(resources=resources | more)
    stored = hash_of_a_release_of_one_device(given.to_json())

    # then it is that of the spec today, even with other numbers of devices, and of no other spec
    assert same_spec(stored, spec(resources=kept | {"nodes": 2, "gpusPerNode": 4}))
    assert same_spec(stored, spec(resources=kept | {"gpusPerNode": 1}))
    assert not same_spec(stored, spec(resources=kept | {"memory": "4Gi"}))
    assert not same_spec(stored, spec(training={"seed": 1}, resources=kept))


def test_two_runs_of_one_name_have_different_folders_of_bounded_length():
    assert run_id("eli5", "0123456789abcdef") == "eli5-01234567"
    assert run_id("eli5", "fedcba98") != run_id("eli5", "01234567")
    assert len(run_id("a" * 253, "0123456789")) == 209


def test_the_run_file_survives_its_way_as_json():
    run = RunFile(name="a", namespace="b", uid="c", attempt=2, spec=spec(suspend=False))

    assert RunFile.parse(run.to_json()) == run


def test_an_adapter_takes_defaults_that_suit_it():
    settings = resolve(spec(training={"adapter": {}})).flat()
    assert {name: value for name, value in settings.items() if "adapter" in name} == {
        "training.adapter.type": "LoRA", "training.adapter.rank": 16, "training.adapter.alpha": 32,
        "training.adapter.dropout": 0.05, "training.adapter.target_modules": ["all-linear"],
        "training.adapter.rank_stabilized": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("training", "output", "wanted"),
    [
        ({"adapter": {}}, None, {"training.learning_rate": 2e-4, "output.merge": True}),
        ({"adapter": {}, "learningRate": "1e-3"}, {}, {"training.learning_rate": 1e-3, "output.merge": True}),
        (
            {"adapter": {}, "quantization": "NF4"},
            {"merge": False},
            {"training.quantization": "NF4", "output.merge": False},
        ),
        ({"adapter": {"dropout": "0", "rank": 8}}, None, {"training.adapter.dropout": 0.0, "training.adapter.rank": 8}),
    ],
)
def test_what_goes_with_an_adapter_is_resolved(training: Any, output: Any, wanted: dict[str, Any]):
    fields = {"training": training} | ({} if output is None else {"output": output})
    found = resolve(spec(**fields)).flat()
    assert {name: found.get(name) for name in wanted} == wanted


def test_a_manifest_without_an_adapter_has_the_hash_and_the_settings_that_it_had():
    assert spec_hash(spec()) == "b5867ba0d52a3ff129ac72ff39e6c7eb14ad56631f042f175a9550077c0e8e19"
    assert not [
        name for name in resolve(spec()).flat() if "adapter" in name or "quantization" in name or "merge" in name
    ]
