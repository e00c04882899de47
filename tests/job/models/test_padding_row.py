"""Tied embeddings whose padding row transformers zeroes on loading: published and read again as the same model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import SMALL

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model
from lmft_job.models.config import fresh_config
from lmft_job.models.next_token import embedding_rows, pads_left
from lmft_job.models.padding_row import hold_padding_row

FUNNEL = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "block_sizes": [1, 1], "num_decoder_layers": 1}
YOUTU = {
    **SMALL, "num_key_value_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16, "v_head_dim": 16,
}  # fmt: skip
GEMMA3N = {
    **SMALL, "head_dim": 16, "num_key_value_heads": 2, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 300,
    "hidden_size_per_layer_input": 8, "intermediate_size": [64] * SMALL["num_hidden_layers"],
}  # fmt: skip
KINDS: list[tuple[Task, str, dict[str, Any], bool]] = [
    (Task.CAUSAL_LM, "youtu", {**YOUTU, "tie_word_embeddings": True}, True),
    (Task.CAUSAL_LM, "youtu", {**YOUTU, "tie_word_embeddings": False}, False),
    (Task.MASKED_LM, "funnel", FUNNEL, True),
    (Task.MASKED_LM, "ibert", SMALL, False),
    (Task.MASKED_LM, "bert", SMALL, False),
    (Task.CAUSAL_LM, "llama", {**SMALL, "tie_word_embeddings": True}, False),
]


def tokenizer_for(task: Task) -> Any:
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, task)


def built(task: Task, kind: str, given: dict[str, Any]) -> Any:
    tokenizer = tokenizer_for(task)
    labels = ["cold", "warm"] if task == Task.SEQUENCE_CLASSIFICATION else None
    config = fresh_config({"model_type": kind, **given}, tokenizer, labels)
    return build_model(task, config, tokenizer, None, "spec.model.fromConfig", seed=1)


@pytest.mark.parametrize(("task", "kind", "given", "held"), KINDS, ids=lambda value: str(value)[:12])
def test_what_is_trained_is_what_is_read_again(
    task: Task, kind: str, given: dict[str, Any], held: bool, tmp_path: Path
) -> None:
    made = built(task, kind, given)
    model = made.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)

    ids = torch.arange(20)[None]
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    again = getattr(transformers, tasks.of(task).auto_class).from_pretrained(tmp_path, dtype=torch.float32)

    there, row = model.get_input_embeddings().weight, model.get_input_embeddings().padding_idx
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert any("stays at zero" in note for note in made.notes) == held
    if held:
        assert bool((there[row] == 0).all())
        assert there.grad is not None
        assert int((there.grad.abs().sum(1) > 0).sum()) == len(there) - 1
    if kind == "youtu" and held:
        assert "set tie_word_embeddings: false" in made.notes[0]


def test_the_trial_changes_neither_weights_nor_marks_nor_random_state() -> None:
    made = built(Task.MASKED_LM, "funnel", FUNNEL).model
    weights = {name: value.clone() for name, value in made.state_dict().items()}
    marks = [getattr(one, "_is_hf_initialized", None) for one in made.parameters()]
    state = torch.random.get_rng_state()

    assert hold_padding_row(made)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert [getattr(one, "_is_hf_initialized", None) for one in made.parameters()] == marks
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())


def test_a_model_within_a_model_initialises_its_own_modules() -> None:
    assert hold_padding_row(built(Task.CAUSAL_LM, "gemma3n_text", GEMMA3N).model) == []


def test_embeddings_of_a_class_of_their_own_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(Task.SEQUENCE_CLASSIFICATION, "ibert", SMALL).model
    assert embedding_rows(model) == len(tokenizer_for(Task.SEQUENCE_CLASSIFICATION))
    assert not pads_left(model, model.config.pad_token_id, wanted=False)
    monkeypatch.setattr(type(model), "get_input_embeddings", lambda self: torch.nn.Parameter(torch.zeros(8, 4)))
    assert [pads_left(model, 1, wanted=side) for side in (True, False)] == [True, False]


def test_settings_that_could_not_be_saved_are_refused_before_training() -> None:
    given = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 32, "output_attentions": True}
    with pytest.raises(InvalidError, match=r"settings could not be saved with the model \(.*output_attentions"):
        built(Task.CAUSAL_LM, "gpt2", given)
