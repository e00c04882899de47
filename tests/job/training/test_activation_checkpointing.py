"""Layers that compute their activations again change no bit of a run, however many they are, wherever inputs wait."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.comparing import losses, report
from support.forked import KILL, TERM, attempt, complete, outcome, run_folder, toy_spec
from support.ranks import complete_ranks
from support.tiny_bases import save_base

from lmft_job.models.device import Arithmetic
from lmft_job.training.acceleration import selection
from lmft_job.training.acceleration.activation_checkpointing import activation_checkpointing, checkpointable
from lmft_job.training.acceleration.selection import Acceleration
from lmft_job.training.batch import ALL_LAYERS, NO_CHECKPOINTING, Checkpointing

LAYERS = 4
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": LAYERS, "n_head": 2, "n_positions": 64, "vocab_size": 100, "bos_token_id": 0,
             "eos_token_id": 1},
    "llama": {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1,
              "intermediate_size": 48, "vocab_size": 100, "max_position_embeddings": 64},
}  # fmt: skip


def made(kind: str) -> Any:
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **KINDS[kind]))


def step(model: Any) -> tuple[list[torch.Tensor], Counter[int]]:
    """Loss and gradients with dropout, and how often each layer's MLP was computed."""
    ids = torch.randint(3, 100, (2, 24), generator=torch.Generator().manual_seed(7))
    layers = [module for module in model.modules() if type(module).__name__ in ("GPT2MLP", "LlamaMLP")]
    calls: Counter[int] = Counter()
    hooks = [layer.register_forward_pre_hook(lambda *_, n=n: calls.update([n])) for n, layer in enumerate(layers)]
    torch.manual_seed(3)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()
    return [loss.detach(), *gradients], calls


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_layers_as_are_wanted_are_computed_again_with_the_same_gradients(kind: str, offload: bool) -> None:
    model = made(kind)
    assert checkpointable(model) == LAYERS
    expected, once = step(model)

    for wanted in (1, 3, ALL_LAYERS):
        with activation_checkpointing(model, Checkpointing(wanted, offload)):
            found, calls = step(model)

        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
        assert calls == {layer: 2 if layer < wanted else 1 for layer in range(LAYERS)}

    assert step(model)[1] == once == dict.fromkeys(range(LAYERS), 1), "afterwards no layer is checkpointed"


def test_compiled_layers_can_be_checkpointed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = step(made("llama"))
    model = made("llama")
    monkeypatch.setattr(selection, "BACKEND", "aot_eager")
    assert selection.compile_layers(model)

    with activation_checkpointing(model, Checkpointing(2)):
        found, _ = step(model)

    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(found, expected, strict=True))


def test_the_report_says_how_many_layers_it_was() -> None:
    model, cpu = made("gpt2"), Arithmetic(torch.device("cpu"))

    said = [
        Acceleration(checkpointing=wanted).described(model, cpu)
        for wanted in (NO_CHECKPOINTING, Checkpointing(3), Checkpointing(ALL_LAYERS, offload=True))
    ]

    assert said == [
        [],
        ["activation checkpointing of 3 of 4 layers"],
        ["activation checkpointing of 4 of 4 layers, inputs in host memory"],
    ]


def deep(home: Path, **training: Any) -> dict[str, Any]:
    """Three layers with dropout; documents that do not see each other."""
    spec = toy_spec(home, training=training, dataset={"isolateDocuments": True})
    spec["model"]["fromConfig"]["n_layer"] = 3
    return spec


def adjust(home: Path, layers: int, *, name: str, rows: int = 4, offload: bool = False) -> None:
    """What an attempt before, or the preparation, stored for a run."""
    run_folder(home, name).mkdir(parents=True)
    note = {"rows": rows, "accumulation": 1, "notes": ["noted"], "checkpointedLayers": layers, "offload": offload}
    (run_folder(home, name) / "adjustment.json").write_text(json.dumps(note))


def short_until_two_layers(teller: Any) -> None:
    """Memory that suffices for as many checkpointed layers as two, from the eighth step on."""
    from lmft_job.training.trainer import RecipeTrainer

    whole = RecipeTrainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        checkpointed = [getattr(module, "gradient_checkpointing", False) for module in model.transformer.h]
        if self.state.global_step >= 7 and sum(checkpointed) < 2:
            raise torch.OutOfMemoryError("simulated: out of memory")
        return whole(self, model, inputs, num_items_in_batch)

    RecipeTrainer.training_step = training_step  # type: ignore[method-assign]


def test_a_run_short_of_memory_checkpoints_layers_and_ends_bit_equal_whatever_happens_then(tmp_path: Path) -> None:
    # given a run with enough memory
    spec = deep(tmp_path)
    complete(tmp_path, spec, name="calm")

    # when memory runs out, and later attempts are stopped and killed
    first = attempt(tmp_path, spec, patch=short_until_two_layers)
    first.until("step 12")
    first.signal(TERM)
    assert first.wait() == 75
    assert "restart" in first.lines
    second = attempt(tmp_path, spec, 2)
    second.until("step 18")
    second.signal(KILL)
    second.wait()
    last = complete(tmp_path, spec, 3)

    # then nothing differs from the calm run but what is said
    assert last.said("resumed from step")
    assert list(losses(tmp_path)) == list(losses(tmp_path, "calm"))
    ours, calm = outcome(tmp_path), outcome(tmp_path, "calm")
    assert (ours["results"], ours["evaluations"]) == (calm["results"], calm["evaluations"])
    told = report(tmp_path)
    assert told["acceleration"] == ["activation checkpointing of 2 of 3 layers"]
    assert told["training"]["adjustments"] == [
        "out of accelerator memory at step 7: activation checkpointing of 2 of 3 layers"
    ]
    assert report(tmp_path, "calm")["acceleration"] == []


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_ranks_checkpoint_as_many_layers_each(parallelism: str, tmp_path: Path) -> None:
    spec = deep(tmp_path, parallelism=parallelism, perDeviceBatchSize=2)
    complete_ranks(tmp_path, spec, 2, name="calm")
    adjust(tmp_path, 2, name="toy", rows=2, offload=True)

    complete_ranks(tmp_path, spec, 2)

    assert list(losses(tmp_path)) == list(losses(tmp_path, "calm"))
    assert report(tmp_path)["acceleration"] == ["activation checkpointing of 2 of 3 layers, inputs in host memory"]


def test_an_adapters_base_is_checkpointed_too(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    training = {"learningRate": "1e-2", "adapter": {"rank": 4, "dropout": "0.1"}}
    spec = toy_spec(tmp_path, training=training) | {"model": {"name": base}}
    complete(tmp_path, spec, name="calm")
    adjust(tmp_path, 1, name="toy")

    complete(tmp_path, spec)

    assert list(losses(tmp_path)) == list(losses(tmp_path, "calm"))
    assert report(tmp_path)["acceleration"][0].startswith("activation checkpointing of 1 of")
