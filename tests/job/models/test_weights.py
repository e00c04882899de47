"""Published weights: taken as they are meant, and refused where a run on them would be worth nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lmft_api.tasks import Task
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model, load_config
from lmft_job.models.weights import restore

LLAMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 32,
}  # fmt: skip
HEADLESS = "it lacks lm_head.weight, which would be initialised randomly"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.CAUSAL_LM)


def published(folder: Path, **changed: Any) -> transformers.PreTrainedModel:
    """A small llama as somebody would publish it."""
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **changed}))
    model.save_pretrained(folder)
    return model


def load(folder: Path, tokenizer: Any, task: Task = Task.CAUSAL_LM) -> Any:
    labels = ["cold", "warm", "hot"] if task == Task.SEQUENCE_CLASSIFICATION else None
    config = load_config(folder, "spec.model.name", trust_remote_code=False, labels=labels)
    return build_model(task, config, tokenizer, folder, "spec.model.name", seed=1)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def reconfigure(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize("mark", ["module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_the_marks_of_torchs_wrappers_are_understood_and_not_published(
    mark: str, tmp_path: Path, tokenizer: Any
) -> None:
    wanted = published(tmp_path / "in").state_dict()
    rewrite(tmp_path / "in", lambda weights: {mark + name: value for name, value in weights.items()})

    built = load(tmp_path / "in", tokenizer)

    built.model.save_pretrained(tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert built.notes == ()
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in stored.items())


def without_head(folder: Path) -> None:
    rewrite(folder, lambda weights: {name: value for name, value in weights.items() if name != "lm_head.weight"})


def base_model(folder: Path) -> None:
    transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)).save_pretrained(folder)


def another_model(folder: Path) -> None:
    rewrite(folder, lambda weights: {f"base_model.model.{name}.lora_A": value for name, value in weights.items()})


def not_numbers(folder: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["model.norm.weight"][3] = float("nan")
        return weights

    rewrite(folder, spoil)


def other_type(kind: torch.dtype) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: {name: value.to(kind) for name, value in weights.items()})


def shards(folder: Path, *, lost: str) -> None:
    transformers.LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="10KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    next(iter(sorted(folder.glob(lost)))).unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def renamed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "without head": (without_head, HEADLESS),
    "a base model": (base_model, HEADLESS),
    "another model": (another_model, "it lacks weights of LlamaForCausalLM.*such as base_model.model"),
    "more layers than the configuration": (
        lambda folder: reconfigure(folder, num_hidden_layers=1), "more layers than its config.json says",
    ),
    "fewer layers": (lambda folder: reconfigure(folder, num_hidden_layers=3), r"lacks .*model\.layers\.2"),
    "another shape": (lambda folder: reconfigure(folder, intermediate_size=48), "other shapes than its config.json"),
    "NaN": (not_numbers, r"hold NaN or infinity \(model.norm.weight\)"),
    "quantized": (
        lambda folder: reconfigure(folder, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantized \\(by gptq\\)",
    ),
    "FP8": (other_type(torch.float8_e4m3fn), "is F8_E4M3"),
    "integers": (other_type(torch.int8), "quantized .* is I8"),
    "a shard that is missing": (lambda folder: shards(folder, lost="*-of-*"), "1 of its .* files .* are missing"),
    "an index that is missing": (lambda folder: shards(folder, lost="*.index.json"), "in parts, and .* is missing"),
    "cut": (cut, "model.safetensors is damaged or incomplete"),
    "another file name": (renamed, "rename it to model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_not_the_models_own_are_refused(case: str, tmp_path: Path, tokenizer: Any) -> None:
    spoil, words = WRONG[case]
    published(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InvalidError, match=words) as caught:
        load(tmp_path, tokenizer)
    assert all(problem.startswith("spec.model.name: ") for problem in caught.value.problems)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_type_is_trained_in_fp32(kind: torch.dtype, tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path)
    other_type(kind)(tmp_path)
    assert {weight.dtype for weight in load(tmp_path, tokenizer).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kept", ["lm", "base", "other labels"])
def test_a_classifiers_fresh_head_is_meant_and_said(kept: str, tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path)
    if kept == "base":
        base_model(tmp_path)
    if kept == "other labels":
        config = transformers.LlamaConfig(**LLAMA, num_labels=5)
        transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)

    built = load(tmp_path, tokenizer, Task.SEQUENCE_CLASSIFICATION)

    assert built.notes[0] == "the classification head is newly initialised, from the seed: score.weight"
    assert built.model.score.weight.shape == (3, 16)


def test_a_classifier_whose_body_does_not_fit_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path)
    reconfigure(tmp_path, vocab_size=310)
    with pytest.raises(InvalidError, match=r"model.embed_tokens.weight \(300, 16\) and not \(310, 16\)"):
        load(tmp_path, tokenizer, Task.SEQUENCE_CLASSIFICATION)


def test_embeddings_that_differ_stay_apart_for_whoever_loads_them(tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path / "in")
    reconfigure(tmp_path / "in", tie_word_embeddings=True)

    load(tmp_path / "in", tokenizer).model.save_pretrained(tmp_path / "out")

    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_weights_without_use_are_said(tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path)
    rewrite(tmp_path, lambda weights: {**weights, "vision.patch": torch.zeros(2)})
    assert load(tmp_path, tokenizer).notes == (
        "weights of spec.model.name that the model does not use were ignored: vision.patch",
    )


# Published, and what is to be published again: None where it is left out.
GENERATION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temperature without do_sample": ({"temperature": 0.6, "top_p": 0.9}, {"do_sample": True}),
    "greedy by its own words": ({"do_sample": False, "top_k": 5}, {"top_k": None}),
    "greedy by a temperature of 0": ({"temperature": 0.0, "top_p": 0.9}, {"temperature": None, "top_p": None}),
    "settings of beams without beams": ({"early_stopping": True, "length_penalty": 2.0},
                                        {"early_stopping": None, "length_penalty": None}),
    "outputs that nobody gets": ({"output_scores": True}, {"output_scores": None}),
    "nothing wrong": ({"do_sample": True, "temperature": 0.5}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", GENERATION)
def test_generation_settings_are_repaired_before_training(case: str, tmp_path: Path, tokenizer: Any) -> None:
    settings, repaired = GENERATION[case]
    published(tmp_path / "in")
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps(settings))

    built = load(tmp_path / "in", tokenizer)
    built.model.save_pretrained(tmp_path / "out")

    stored = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    for name, value in {**settings, **repaired}.items():
        assert (stored.get(name) or None) == (value or None), (name, stored)
    assert bool(built.notes) == bool(repaired)
    assert all(note.startswith("generation_config.json: ") for note in built.notes)


def test_generation_settings_beyond_repair_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    published(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": -5}))
    with pytest.raises(InvalidError, match=r"spec.model.name: its generation settings \(generation_config.json\)"):
        load(tmp_path, tokenizer)


MIXTRAL = {**LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1}


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"])
def test_a_checkpoint_gives_back_its_weights_whatever_their_names_on_disk(kind: str, tmp_path: Path) -> None:
    factory = getattr(transformers, kind)
    config = factory.config_class(**(MIXTRAL if kind.startswith("Mix") else LLAMA))
    saved, resumed = factory(config), factory(config)
    saved.save_pretrained(tmp_path)

    restore(resumed, tmp_path)

    weights = resumed.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in saved.state_dict().items())


@pytest.mark.parametrize("changed", [{"hidden_size": 32}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_a_checkpoint_of_another_model_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    published(tmp_path)
    other = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **changed}))
    with pytest.raises(InvalidError, match="it is not the model that this run began with"):
        restore(other, tmp_path)
