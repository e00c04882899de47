"""Names of other tools are answered with ours: what people know from the Trainer, from TRL or from a pod."""

import ast
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path

import pytest

from lmft_api.manifest import hints
from lmft_api.manifest.validation import _every_field, spec_problems

TRAINING = [path.split(".")[1] for path in _every_field() if path.count(".") == 1 and path.startswith("training.")]
SPEC = {"model": {"name": "a/b"}, "dataset": {"name": "c/d"}}


def said(section: str, name: str, value: object) -> str:
    spec = {**SPEC, section: {**SPEC.get(section, {}), name: value}} if section else {**SPEC, name: value}
    [problem] = [found for found in spec_problems(spec) if found.path.endswith(name)]
    return problem.message


@pytest.mark.parametrize(
    ("section", "name", "meant"),
    [
        ("training", "num_train_epochs", "epochs"),
        ("training", "lr", "learningRate"),
        ("training", "learning_rate", "learningRate"),
        ("training", "per_device_train_batch_size", "perDeviceBatchSize"),
        ("training", "optim", "optimizer"),
        ("training", "bf16", "precision"),
        ("training", "eval_steps", "spec.evaluation.everySteps"),
        ("training", "output_dir", "spec.output.uri"),
        ("training", "max_seq_length", "spec.dataset.blockSize"),
        ("dataset", "textFeild", "textField"),
        ("dataset", "dataset_text_field", "textField"),
        ("dataset", "maxSteps", "spec.training.maxSteps"),
        ("model", "model_name_or_path", "name"),
        ("", "num_train_epochs", "spec.training.epochs"),
        ("", "epochs", "spec.training.epochs"),
        ("", "trainig", "training"),
        ("", "lr", "spec.training.learningRate"),
        ("resources", "nvidia.com/gpu", "gpusPerNode"),
        ("training", "lora_r", "adapter.rank"),
        ("training", "use_dora", "adapter.type"),
        ("training", "load_in_4bit", "quantization"),
        ("training", "torch_compile", "compile"),
        ("training", "evals_per_epoch", "spec.evaluation.everySteps"),
        ("", "lora_alpha", "spec.training.adapter.alpha"),
        ("", "lora_target_linear", "spec.training.adapter.targetModules"),
        ("", "field_messages", "spec.dataset.messagesField"),
        ("", "model_type", "spec.model.fromConfig"),
        ("", "sequence_len", "spec.dataset.blockSize"),
        ("", "micro_batch_size", "spec.training.perDeviceBatchSize"),
    ],
)
def test_an_unknown_field_is_answered_with_the_one_meant(section: str, name: str, meant: str) -> None:
    assert said(section, name, 1) == f"unknown field; did you mean {meant}?"


def test_a_volume_of_the_node_is_answered_with_a_claim() -> None:
    volume = {"name": "data", "hostPath": {"path": "/data"}, "mountPath": "/data", "claimName": "c"}
    [problem] = spec_problems({**SPEC, "podTemplate": {"volumes": [volume]}})
    assert str(problem) == "spec.podTemplate.volumes[0].hostPath: unknown field; did you mean claimName?"


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("precision", "bf16", "BF16"),
        ("precision", "bfloat16", "BF16"),
        ("precision", "fp16", "FP16"),
        ("precision", "half", "FP16"),
        ("precision", "float32", "FP32"),
        ("precision", "auto", "Auto"),
        ("optimizer", "adamw_torch", "AdamW"),
        ("optimizer", "paged_adamw_8bit", "AdamW"),
        ("optimizer", "sgd", "SGD"),
        ("scheduler", "constant_with_warmup", "Constant"),
        ("scheduler", "cosine", "Cosine"),
    ],
)
def test_a_value_of_another_tool_is_answered_with_ours(field: str, value: str, meant: str) -> None:
    assert said("training", field, value).endswith(f'not "{value}"; did you mean {meant}?')


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("logging_steps", "every step is logged, to metrics.jsonl in the run's folder"),
        ("wandb_name", "a tracker's run is named by the run itself, and gets its metrics (spec.reportTo)"),
        ("deepspeed", "devices are set in spec.resources, and how they share the work is chosen by itself"),
        ("run_name", "a run is named by metadata.name"),
        ("adam_beta1", "the optimizer keeps the defaults of torch"),
        ("neftune_noise_alpha", "it has no counterpart here"),
    ],
)
def test_a_field_without_counterpart_is_no_typing_error_of_another(name: str, why: str) -> None:
    assert said("training", name, 1) == f"unknown field; {why}"


def test_no_field_of_the_trainer_is_taken_for_a_typing_error_of_an_unrelated_one() -> None:
    # given every field of TrainingArguments, read without importing torch
    source = (Path(find_spec("transformers").submodule_search_locations[0]) / "training_args.py").read_text()
    [arguments] = [node for node in ast.parse(source).body if getattr(node, "name", "") == "TrainingArguments"]
    names = [node.target.id for node in arguments.body if isinstance(node, ast.AnnAssign)]
    assert len(names) > 80

    # when one is not answered from the tables, then it has the letters of the field that it is answered with
    for name in names:
        path = hints.for_field(name, TRAINING, "training", _every_field())
        if path is None or hints.why_absent(name) or hints.plain(name) in hints._BY_FIELD:
            continue
        ours = path.rpartition(".")[2]
        assert SequenceMatcher(None, hints.plain(name), hints.plain(ours)).ratio() > 0.8, (name, path)


def test_every_hint_leads_to_a_field_that_there_is() -> None:
    fields = set(_every_field())
    assert [path for path in hints._FIELDS if path not in fields] == []


def test_nonsense_is_answered_with_nothing() -> None:
    assert said("training", "zzzzqqqq", 1) == "unknown field"
