"""What makes a step fast on a GPU, forced on here, computes what the plain loop computes; a CPU can hold that."""

from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from lmft_api.spec import Compile
from lmft_api.tasks import Task
from lmft_job.evaluation.held_out import evaluate_held_out
from lmft_job.models.device import Arithmetic
from lmft_job.training.acceleration import selection
from lmft_job.training.acceleration.aligned_head import admits_aligned_head, aligned_head
from lmft_job.training.acceleration.fused_loss import admits_fused_loss, fused_evaluation, fused_loss
from lmft_job.training.acceleration.packed_attention import NAME, TRIED, admits_packed_attention, packed_attention
from lmft_job.training.acceleration.selection import PLAIN, Acceleration, choose_acceleration

CPU = Arithmetic(torch.device("cpu"))
BLOCK, VOCABULARY = 24, 100
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64} | {k: SMALL[k] for k in SMALL if "_id" in k}
    | {"vocab_size": VOCABULARY},
    "llama": GROUPED,
    "qwen3": GROUPED,
    "mistral": GROUPED | {"sliding_window": None},
    "phi": SMALL,
    "gpt_neox": SMALL,
}  # fmt: skip


def made(model_type: str, settings: dict[str, Any], head: Any = transformers.AutoModelForCausalLM) -> Any:
    torch.manual_seed(1)
    return head.from_config(transformers.AutoConfig.for_model(model_type, **settings))


def blocks(rows: int = 3) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (rows, BLOCK), generator=torch.Generator().manual_seed(7))


class Reads(TorchDispatchMode):
    """Counts the values that Python reads from a device: each is a wait for all that was queued on it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model_type", CAUSAL)
def test_forced_on_a_step_reads_nothing_from_the_device_and_its_gradients_are_those_of_the_plain_step(
    model_type: str,
) -> None:
    model, ids = made(model_type, CAUSAL[model_type]).eval(), blocks()
    model.get_output_embeddings().training = True
    count = torch.tensor(ids.numel() - len(ids))
    fast = Acceleration(packed=True, fused=True)

    plain = model(input_ids=ids, labels=ids, num_items_in_batch=count, use_cache=False).loss
    expected = torch.autograd.grad(plain, list(model.parameters()))
    mask = torch.ones_like(ids)
    with fast.training(model), Reads() as reads:
        loss = model(input_ids=ids, labels=ids, attention_mask=mask, num_items_in_batch=count, use_cache=False).loss
        gradients = torch.autograd.grad(loss, list(model.parameters()))

    assert reads.count == 0
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float((mine - theirs).norm()) <= 1e-5 * max(1.0, float(theirs.norm()))


@pytest.mark.parametrize("model_type", CAUSAL)
def test_the_plain_models_are_admitted(model_type: str) -> None:
    model = made(model_type, CAUSAL[model_type])
    before = torch.random.get_rng_state()

    assert admits_packed_attention(model, BLOCK, CPU)
    assert admits_fused_loss(model, CPU)
    assert admits_fused_loss(model, CPU, of_targets=True)

    assert torch.equal(before, torch.random.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training


def test_a_sliding_window_shorter_than_a_block_keeps_the_models_own_attention() -> None:
    model = made("mistral", GROUPED | {"sliding_window": 6})

    assert not admits_packed_attention(model, BLOCK, CPU)
    assert admits_packed_attention(model, 5, CPU), "within one window nothing slides"


@pytest.mark.parametrize(("window", "admitted"), [(TRIED + 1, False), (2 * TRIED, True)])
def test_of_a_long_block_a_part_is_tried_and_a_window_longer_than_that_is_refused_by_its_size(
    window: int, admitted: bool
) -> None:
    model = made("mistral", GROUPED | {"sliding_window": window, "num_hidden_layers": 1})
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, given, made: lengths.append(made.shape[1]))

    assert admits_packed_attention(model, 2 * TRIED, CPU) == admitted
    assert set(lengths) == {TRIED}


@pytest.mark.parametrize("cap", [1.0, 30.0])
def test_a_head_that_is_more_than_a_product_keeps_its_own_loss_even_while_its_weights_are_fresh(cap: float) -> None:
    model = made("gemma2", GROUPED | {"final_logit_softcapping": cap})

    assert not admits_fused_loss(model, CPU)
    assert not admits_fused_loss(model, CPU, of_targets=True)


def test_a_head_that_only_scales_is_still_a_product() -> None:
    assert admits_fused_loss(made("cohere", GROUPED | {"logit_scale": 0.0625}), CPU)


def test_masked_language_models_take_packed_blocks_too() -> None:
    model = made("roberta", SMALL, transformers.AutoModelForMaskedLM)

    assert admits_packed_attention(model, BLOCK, CPU)


def test_logits_are_never_made_in_a_fused_step() -> None:
    model, ids = made("llama", GROUPED | {"vocab_size": 5_000}), blocks(64)

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    Largest.seen = max(Largest.seen, tensor.numel())
            return result

    with fused_loss(model), Largest():
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    with fused_evaluation(model.eval()), torch.no_grad(), Largest():
        model(input_ids=ids, labels=ids, use_cache=False)

    assert 0 < Largest.seen < ids.numel() * 5_000 / 4

    # Of the targets alone, where no more than a few tokens are one
    labels = ids.where(torch.arange(BLOCK) % 4 == 1, -100)
    Largest.seen = 0
    with fused_loss(model.train(), of_targets=True), Largest():
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    with fused_evaluation(model.eval(), of_targets=True), torch.no_grad(), Largest():
        model(input_ids=ids, labels=labels, use_cache=False)

    assert Largest.seen == int((labels != -100).sum()) * 5_000


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("counted", [False, True])
def test_a_step_with_the_logits_of_its_targets_is_the_plain_step(model_type: str, counted: bool) -> None:
    model, ids = made(model_type, CAUSAL[model_type]), blocks()
    labels = ids.where(torch.arange(BLOCK) % 3 > 0, -100)
    items = {"num_items_in_batch": torch.tensor(7)} if counted else {}

    def step() -> list[torch.Tensor]:
        torch.manual_seed(1)
        loss = model(input_ids=ids, labels=labels, use_cache=False, **items).loss
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    expected = step()
    with Acceleration(of_targets=True).training(model):
        found = step()

    for mine, theirs in zip(found, expected, strict=True):
        assert float((mine - theirs).norm()) <= 1e-6 * max(1.0, float(theirs.norm()))


def test_a_batch_without_targets_has_no_loss_as_in_the_plain_step() -> None:
    model, ids = made("llama", GROUPED), blocks()

    with Acceleration(of_targets=True).training(model):
        loss = model(input_ids=ids, labels=torch.full_like(ids, -100), use_cache=False).loss

    assert loss.isnan()


@pytest.mark.parametrize("fast", [Acceleration(fused=True), Acceleration(of_targets=True)])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["gpt2", "phi"])
def test_figures_without_logits_are_those_with_them_within_training_too(
    model_type: str, autocast: torch.dtype | None, fast: Acceleration
) -> None:
    model, ids = made(model_type, CAUSAL[model_type]), blocks(7)
    rows: Any = [{"input_ids": row, "labels": row.where(torch.arange(BLOCK) % 5 > 0, -100)} for row in ids]
    names = dict(model.__dict__)

    def measured() -> Any:
        return evaluate_held_out(
            model, rows, lambda some: {name: torch.stack([row[name] for row in some]) for name in some[0]},
            Task.CAUSAL_LM, batch_size=3, arithmetic=Arithmetic(torch.device("cpu"), autocast),
        )  # fmt: skip

    plain = measured()
    with fast.training(model):
        with fast.evaluating(model):
            fused = measured()
        within = measured()

    assert within.figures.loss == pytest.approx(plain.figures.loss, rel=1e-6)
    assert fused.figures.loss == pytest.approx(plain.figures.loss, rel=1e-6)
    assert fused.figures.loss_error == pytest.approx(plain.figures.loss_error, rel=1e-5)
    assert fused.units.losses.tolist() == pytest.approx(plain.units.losses.tolist(), rel=1e-6)
    assert dict(model.__dict__) == names


def test_in_16_bits_a_loss_without_logits_and_its_gradients_are_those_with_them() -> None:
    model, ids = made("llama", GROUPED | {"vocab_size": 5_000}), blocks(12)
    model.get_output_embeddings().weight.data.mul_(20)

    def step() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    expected = step()
    with fused_loss(model):
        fused = step()

    assert fused[0].dtype == torch.float32
    assert float(fused[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    for mine, theirs in zip(fused, expected, strict=True):
        assert float((mine - theirs).detach().norm()) <= 1e-2 * float(theirs.detach().norm())


def test_outside_of_training_and_afterwards_the_model_is_as_it_was() -> None:
    model, ids = made("gpt2", CAUSAL["gpt2"]), blocks()
    expected = model.eval()(input_ids=ids, labels=ids)
    names = list(model.state_dict())

    with Acceleration(packed=True, fused=True).training(model):
        assert model.config._attn_implementation == NAME
        within = model(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids))
    after = model(input_ids=ids, labels=ids)

    assert torch.equal(within.logits, expected.logits)
    assert torch.equal(after.logits, expected.logits)
    assert model.config._attn_implementation == "sdpa"
    assert "forward" not in model.get_output_embeddings().__dict__
    assert list(model.state_dict()) == names


def test_an_aligned_head_gives_the_same_logits_and_gradients_and_weights_of_the_same_shape() -> None:
    model, ids = made("gpt2", CAUSAL["gpt2"] | {"vocab_size": 101}).eval(), blocks()
    assert admits_aligned_head(model)
    assert not admits_aligned_head(made("gpt2", CAUSAL["gpt2"] | {"vocab_size": 104}))

    def step() -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(input_ids=ids, labels=ids, use_cache=False)
        return outputs.logits, outputs.loss, *torch.autograd.grad(outputs.loss, list(model.parameters()))

    expected = step()
    with aligned_head(model):
        aligned = step()

    for mine, theirs in zip(aligned, expected, strict=True):
        assert mine.shape == theirs.shape
        assert float((mine - theirs).detach().norm()) <= 1e-2 * float(theirs.detach().norm())
    assert aligned[1].item() == pytest.approx(expected[1].item(), rel=1e-5)
    assert "forward" not in model.get_output_embeddings().__dict__


@pytest.mark.parametrize(("task", "graphs"), [("CausalLM", 1), ("MaskedLM", 1), ("SequenceClassification", 0)])
def test_the_compiled_loss_of_a_language_model_is_the_plain_one_with_its_gradients(
    task: str, graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {
        "CausalLM": ("gpt2", CAUSAL["gpt2"], transformers.AutoModelForCausalLM),
        "MaskedLM": ("modernbert", SMALL, transformers.AutoModelForMaskedLM),
        "SequenceClassification": ("roberta", SMALL, transformers.AutoModelForSequenceClassification),
    }
    model, ids, made_of = made(*heads[task]).eval(), blocks(), []
    labels = torch.tensor([0, 1, 0]) if graphs == 0 else ids.where(torch.arange(BLOCK) % 5 > 0, -100)
    names = dict(model.__dict__)
    torch._dynamo.reset()
    monkeypatch.setattr(selection, "BACKEND", lambda graph, examples: made_of.append(graph) or graph.forward)

    def step() -> tuple[torch.Tensor, ...]:
        outputs = model(input_ids=ids, labels=labels)
        return outputs.loss, *torch.autograd.grad(outputs.loss, list(model.parameters()))

    expected = step()
    with Acceleration(compiled=True).training(model):
        compiled = step()
        with Acceleration(compiled=True).evaluating(model):
            step()

    assert len(made_of) == graphs
    for mine, theirs in zip(compiled, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-9)
    assert dict(model.__dict__) == names


def test_packed_attention_is_left_even_when_a_step_fails() -> None:
    model = made("gpt2", CAUSAL["gpt2"])

    with pytest.raises(RuntimeError, match="stopped"), packed_attention(model):
        raise RuntimeError("stopped")

    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("block_size", "own_loss", "expected"),
    [(BLOCK, False, PLAIN), (None, True, PLAIN), (None, False, Acceleration(of_targets=True))],
)
def test_a_cpu_gets_the_logits_of_targets_for_conversations_and_nothing_else(
    block_size: int | None, own_loss: bool, expected: Acceleration
) -> None:
    model = made("gpt2", CAUSAL["gpt2"])

    chosen = choose_acceleration(
        model,
        Task.CAUSAL_LM,
        CPU,
        block_size=block_size,
        tokens=4 * BLOCK,
        steps=10_000,
        wanted=Compile.AUTO,
        own_loss=own_loss,
    )

    assert chosen == expected
    rows = PLAIN.collate(lambda items: {"input_ids": torch.zeros(len(items), 3)}, 4)([1, 2])
    assert list(rows) == ["input_ids"]
    assert list(Acceleration(packed=True).collate(lambda items: rows, 4)([1])) == ["input_ids", "attention_mask"]
