"""Attention over padded rows, forced on here: nothing is read from the device, and losses and gradients stay."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from job.training.test_acceleration import CPU, GROUPED, SMALL, Reads, made

from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import Padding, PadRows
from lmft_job.training.acceleration.packed_attention import NAME, PADDED, padded_attention
from lmft_job.training.acceleration.selection import Acceleration

CLASSIFIER, LANGUAGE = transformers.AutoModelForSequenceClassification, transformers.AutoModelForCausalLM
PAD, LONGEST = 2, 48
GPT2 = SMALL | {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
WINDOW = GROUPED | {"sliding_window": 6}


def rows_of(*lengths: int, labelled: bool) -> list[dict[str, Any]]:
    chance = np.random.default_rng(3)
    drawn = [chance.integers(3, 100, length) for length in lengths]
    return [
        {"input_ids": ids, "labels": number % 2}
        if labelled
        else {"input_ids": ids, "labels": ids, "lengths": [len(ids)]}
        for number, ids in enumerate(drawn)
    ]


def batch_of(kind: Any, *lengths: int, to: int | None = None, left: bool = False) -> dict[str, torch.Tensor]:
    labelled = kind is CLASSIFIER
    collate: Padding = PadRows(PAD, left=left) if labelled else PadShared(PAD)
    return collate.within((to,) if to else ())(rows_of(*lengths, labelled=labelled))


def chosen_for(model: Any, kind: Any, *, left: bool = False) -> str | None:
    narrow, wide = (batch_of(kind, 9, 14, to=to, left=left) for to in (None, LONGEST))
    return padded_attention(model, narrow, wide, LONGEST, CPU)


@pytest.mark.parametrize(
    ("kind", "model_type", "settings", "left", "attention"),
    [
        pytest.param(LANGUAGE, "llama", GROUPED, False, NAME, id="a causal model hides the padding after its rows"),
        pytest.param(CLASSIFIER, "llama", GROUPED, False, NAME, id="so does a classifier of that kind"),
        pytest.param(CLASSIFIER, "llama", GROUPED, True, PADDED, id="not if the padding comes first"),
        pytest.param(CLASSIFIER, "bert", SMALL, False, PADDED, id="an encoder needs its mask"),
        pytest.param(CLASSIFIER, "roberta", SMALL, False, PADDED, id="an encoder that counts positions by its padding"),
        pytest.param(LANGUAGE, "mistral", WINDOW, False, PADDED, id="so does a sliding window"),
    ],
)
def test_an_attention_is_admitted_where_it_changes_nothing(
    kind: Any, model_type: str, settings: dict[str, Any], left: bool, attention: str
) -> None:
    model = made(model_type, settings, kind)
    before = torch.random.get_rng_state()

    assert chosen_for(model, kind, left=left) == attention

    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_sees_the_padding_keeps_its_own_way() -> None:
    # given an encoder in which every token is mixed with the one after it, as a convolution does
    model = made("bert", SMALL, CLASSIFIER)
    model.get_input_embeddings().register_forward_hook(lambda _, taken, output: output + output.roll(-1, 1))

    assert chosen_for(model, CLASSIFIER) is None


def test_in_16_bits_it_is_told_too() -> None:
    assert chosen_for(made("llama", GROUPED, LANGUAGE).bfloat16(), LANGUAGE) == NAME
    assert chosen_for(made("mistral", WINDOW, LANGUAGE).bfloat16(), LANGUAGE) == PADDED
    assert chosen_for(made("bert", SMALL, CLASSIFIER).bfloat16(), CLASSIFIER) == PADDED


@pytest.mark.parametrize(
    ("kind", "model_type", "settings"),
    [
        pytest.param(LANGUAGE, "llama", GROUPED, id="conversations"),
        pytest.param(
            CLASSIFIER, "gpt2", SMALL | {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}, id="gpt2"
        ),
        pytest.param(CLASSIFIER, "bert", SMALL, id="labels"),
    ],
)
@pytest.mark.parametrize("lengths", [(5, 9, 16), (16, 16, 16)], ids=["padded", "nothing to pad"])
def test_a_padded_step_reads_nothing_from_the_device_and_its_gradients_are_those_of_the_plain_step(
    kind: Any, model_type: str, settings: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    model = made(model_type, settings, kind).eval()
    admitted = chosen_for(model, kind)
    fast = Acceleration(packed=admitted == NAME, padded=admitted == PADDED)
    options = {} if kind is CLASSIFIER else {"use_cache": False}
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    plain = model(**batch_of(kind, *lengths), **options).loss
    expected = torch.autograd.grad(plain, weights, allow_unused=True)
    wide = batch_of(kind, *lengths, to=LONGEST)
    with fast.training(model), Reads() as reads:
        loss = model(**wide, **options).loss
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)

    assert reads.count == 0
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert float((mine - theirs).norm()) <= 1e-5 * max(1.0, float(theirs.norm()))
