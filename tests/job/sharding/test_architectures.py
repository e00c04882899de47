"""Models of several kinds, divided between two processes: the same loss and gradients, and whole again afterwards."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from torch.distributed.tensor import DTensor

from lmft_job.distributed.world import World
from lmft_job.models.padding_row import hold_divided, hold_padding_row, mark_held
from lmft_job.sharding.divide import assemble, divide, fill, is_divided, outline, plain_class, share_of_model
from lmft_job.sharding.share import share_of
from lmft_job.sharding.spread import described

CPU = torch.device("cpu")
GATHERED = (1, 8000, 2**24)
"""Weights that are gathered at once: each layer by itself, two layers together, all of the model."""
WIDTH = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 61}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def causal(kind: str, **settings: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, pad_token_id=0, **{**WIDTH, **settings})
    return transformers.AutoModelForCausalLM.from_config(config)


def masked(kind: str, **settings: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, pad_token_id=0, **{**WIDTH, **NO_DROPOUT, **settings})
    return transformers.AutoModelForMaskedLM.from_config(config)


def labelled(kind: str, **settings: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, pad_token_id=0, **{**WIDTH, **NO_DROPOUT, **settings})
    return transformers.AutoModelForSequenceClassification.from_config(config)


def with_a_row_at_zero() -> Any:
    """Transformers zeroes the padding token's embedding on every load, which only the weights tell."""
    config = transformers.FunnelConfig(
        vocab_size=61, d_model=24, n_head=2, d_head=12, d_inner=40, block_sizes=[1, 1], num_decoder_layers=1,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, pad_token_id=5,
    )  # fmt: skip
    model: Any = transformers.FunnelForMaskedLM(config)
    if model.get_input_embeddings().weight.is_meta:
        mark_held(model)
    else:
        assert hold_padding_row(model)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "GPT-2, tied embeddings": lambda: causal(
        "gpt2", n_embd=24, n_layer=3, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "Llama, a head of its own": lambda: causal("llama", num_key_value_heads=1, tie_word_embeddings=False),
    "Qwen 3": lambda: causal("qwen3", num_key_value_heads=1, head_dim=12, tie_word_embeddings=True),
    "Mixtral, experts": lambda: causal("mixtral", num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2),
    "RoBERTa, embeddings tied to a head with a bias": lambda: masked("roberta"),
    "ALBERT, one layer used twice": lambda: masked("albert", embedding_size=12, num_hidden_groups=1),
    "DistilBERT": lambda: masked(
        "distilbert", dim=24, n_layers=3, n_heads=2, hidden_dim=40, dropout=0.0, attention_dropout=0.0
    ),
    "BERT with labels": lambda: labelled("bert", num_labels=3),
    "Funnel, whose padding row stays at zero": with_a_row_at_zero,
}


def loss_of(model: Any) -> torch.Tensor:
    ids = torch.arange(1, 17).view(2, 8)
    labels = torch.tensor([0, 2]) if "Classification" in plain_class(model).__name__ else ids
    found: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return found


def divided_is_the_same(make: Callable[[], Any], world: World, at_once: int) -> None:
    """In each process: one model whole, and the same one divided."""
    transformers.set_seed(1)
    whole = make()
    transformers.set_seed(1)
    # The second process has no memory for the weights: it gets its share of those of the first.
    with nullcontext() if world.main else torch.device("meta"):
        model = make()
    assert described(model) == described(whole)
    blank = outline(model)
    divide(model, world, CPU, within_nodes=False, at_once=at_once)
    hold_divided(model, share_of(world, within_nodes=False).rows)
    assert is_divided(model)
    with torch.no_grad():
        loss_of(model)
    assert all(isinstance(weight, DTensor) for weight in model.parameters()), "an evaluation drops what it gathers"
    assert (share_of_model(model).part, share_of_model(model).parts) == (world.rank, 2)

    loss, expected = loss_of(model), loss_of(whole)
    loss.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    gradients = dict(whole.named_parameters())
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor)
        if weight.grad is not None:
            mean: Any = weight.grad
            assert torch.allclose(mean.full_tensor(), gradients[name].grad, atol=1e-6), name

    # Weights of a whole model go into a divided one, and come back.
    with torch.no_grad():
        for weight in whole.parameters():
            weight.add_(1.0)
    fill(model, whole.state_dict().items())
    again = assemble(model, blank, world)
    if world.main:
        assert again.state_dict().keys() == whole.state_dict().keys()
        assert all(torch.equal(again.state_dict()[name], weight) for name, weight in whole.state_dict().items())
        assert float(loss_of(again)) == pytest.approx(float(loss_of(whole)), abs=1e-6)
        assert len(list(again.parameters())) == len(list(whole.parameters()))


def child(rank: int, home: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(home / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=200))
    world = World(rank, 2, rank, 2, 0, 1)
    for name, make in MODELS.items():
        try:
            for at_once in GATHERED:
                divided_is_the_same(make, world, at_once)
        except BaseException as error:
            (home / f"failed-{rank}").write_text(f"{name}, {at_once} at once: {type(error).__name__}: {error}")
            raise


def test_a_divided_model_of_any_kind_is_the_same_model(tmp_path: Path) -> None:
    pids = []
    for rank in (0, 1):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                child(rank, tmp_path)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)

    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

    assert codes == [0, 0], [path.read_text() for path in tmp_path.glob("failed-*")]
