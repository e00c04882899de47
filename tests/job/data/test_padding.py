"""Rows of a classifier are padded to the longest of a batch; what comes out must not depend on which batch that is."""

from typing import Any

import pytest
import torch
import transformers

from lmft_api.tasks import Task
from lmft_job.data.rows import PadRows
from lmft_job.evaluation.held_out import evaluate_held_out
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model
from lmft_job.models.config import fresh_config, take_padding
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import pads_left

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66, "num_key_value_heads": 1,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, "pad_token_id": 0},
    "gpt2": {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64, "pad_token_id": 7},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64},
    "roberta": {name: value for name, value in SMALL.items() if name != "num_key_value_heads"} | {"pad_token_id": 0},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.SEQUENCE_CLASSIFICATION)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_the_same_at_any_batch_size(kind: str, side: str, tokenizer: Any) -> None:
    # given a model whose configuration names another padding id than its tokenizer has
    config = fresh_config({**KINDS[kind], "model_type": kind}, tokenizer, ["a", "b"])
    model = build_model(Task.SEQUENCE_CLASSIFICATION, config, tokenizer, None, "spec.model.fromConfig", seed=1).model
    texts = ["the river", "wide", "the river of Ghent is wide and cold and wide", "cold river Ghent"]
    rows = [{"input_ids": tokenizer(text)["input_ids"], "labels": n % 2} for n, text in enumerate(texts)]
    # when it is evaluated with rows padded
    pad = PadRows(tokenizer.pad_token_id, left=pads_left(model, tokenizer.pad_token_id, wanted=side == "left"))
    losses = []
    for size in (1, 2, 4):
        measured = evaluate_held_out(
            model, rows, pad, Task.SEQUENCE_CLASSIFICATION, batch_size=size, arithmetic=Arithmetic(torch.device("cpu")),  # type: ignore[arg-type]
        )  # fmt: skip
        losses.append(measured.figures.loss)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize(("of_model", "taken"), [(3, 3), (1, 1), (77, 1), (None, 1)])
def test_a_pretrained_models_padding_is_taken_where_it_is_a_special_token(of_model: int | None, taken: int) -> None:
    tokenizer = tokenizers.train(iter([["the river"] * 4]), 300, Task.SEQUENCE_CLASSIFICATION)
    take_padding(tokenizer, transformers.RobertaConfig(pad_token_id=of_model, vocab_size=300))
    assert tokenizer.pad_token_id == taken
