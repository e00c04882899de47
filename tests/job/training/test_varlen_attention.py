"""An attention within each text of a shared row: which models it is for, and that it computes what masks compute."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.attention.varlen
import transformers
from support.varlen import varlen_on_cpu
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lmft_job.data.isolated.boundaries import BOUNDARIES, PadBounded
from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import Item
from lmft_job.models.device import Arithmetic
from lmft_job.tasks.base import IGNORED
from lmft_job.training.acceleration import varlen_attention as module
from lmft_job.training.acceleration.selection import Acceleration
from lmft_job.training.acceleration.varlen_attention import (
    NAME,
    admits_varlen_attention,
    attend_by_text,
    varlen_attention,
    varlen_kernel,
)
from lmft_job.training.batch import Checkpointing

CPU, BF16 = Arithmetic(torch.device("cpu")), Arithmetic(torch.device("cpu"), torch.bfloat16)
WIDTH = 24
SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
GPT2 = {
    "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
ADMITTED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2 | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    "llama": ("llama", GROUPED),
    "qwen3": ("qwen3", GROUPED),
    "phi": ("phi", SMALL),
    "gpt_neox": ("gpt_neox", SMALL),
    "mixtral": ("mixtral", GROUPED | {"num_local_experts": 4}),
    "mistral, its window as long as a row": ("mistral", GROUPED | {"sliding_window": WIDTH}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "dropout in attention": ("gpt2", GPT2 | {"attn_pdrop": 0.1}, "dropout of 0.1"),
    "a window shorter than a row": ("mistral", GROUPED | {"sliding_window": WIDTH - 1}, "a window of 23 tokens"),
    "windows in some layers": ("gemma3_text", GROUPED | {"sliding_window": 4}, "a window of 4 tokens"),
    "an attention of its own": ("falcon", {key: SMALL[key] for key in SMALL if key != "intermediate_size"}, ""),
    "a cap on scores": ("gemma2", GROUPED, ""),
    "no attention": ("mamba", {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2}, ""),
    "biases by distance": ("bloom", {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 2}, ""),
}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not run on a CPU."""
    monkeypatch.setattr(module, "varlen_kernel", lambda: varlen_on_cpu)


def made(kind: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **settings))


def items() -> list[Item]:
    """Rows of several texts and of one, full and not; some tokens are no targets."""
    draw, found = np.random.default_rng(3), []
    for lengths in ([7, 1, 9, 7], [24], [3, 11], [1, 1, 20]):
        ids = draw.integers(3, 100, sum(lengths))
        labels = np.where(draw.random(len(ids)) < 0.8, ids, IGNORED)
        labels[np.cumsum(lengths) - lengths] = IGNORED
        found.append({"input_ids": ids, "labels": labels, "lengths": np.array(lengths)})
    return found


class Seen(TorchDispatchMode):
    """Keeps the arguments of operations of a name, by their names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.calls = name, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.name in str(func):
            names = func._schema.arguments
            given = dict(zip([one.name for one in names], args, strict=False))
            self.calls.append({one.name: one.default_value for one in names} | given | (kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ADMITTED)
def test_what_attends_to_all_before_a_token_is_admitted(kind: str) -> None:
    model = made(*ADMITTED[kind])
    before, names = torch.random.get_rng_state(), dict(model.__dict__)

    assert admits_varlen_attention(model, WIDTH, BF16)

    assert torch.equal(before, torch.random.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training
    assert dict(model.__dict__) == names
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_ask_for_more_keep_their_masks(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    *model_of, reason = REFUSED[kind]
    model = made(*model_of)

    with caplog.at_level("INFO", module.__name__):
        assert not admits_varlen_attention(model, WIDTH, BF16)

    assert reason in caplog.text
    assert model.training


def test_a_window_is_found_however_long_rows_are() -> None:
    assert not admits_varlen_attention(made("mistral", GROUPED | {"sliding_window": 4096}), 4097, BF16)


def test_attention_that_passes_no_keywords_on_is_refused() -> None:
    model = made("llama", GROUPED)
    for layer in model.model.layers:
        whole = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, whole=whole, **options: whole(
            *args, **{name: value for name, value in options.items() if name != BOUNDARIES}
        )

    assert not admits_varlen_attention(model, WIDTH, BF16)


def test_in_fp32_masks_are_kept_for_the_kernel_takes_16_bits() -> None:
    assert not admits_varlen_attention(made("llama", GROUPED), WIDTH, CPU)


def _across(*operands: Any, **options: Any) -> Any:
    query, key, value, boundaries, _, *lengths = operands
    whole = torch.tensor([0, len(query)], dtype=boundaries.dtype)
    return varlen_on_cpu(query, key, value, whole, whole, *lengths, **options)


def _nothing(*operands: Any, **options: Any) -> Any:
    return varlen_on_cpu(*operands, **options) * torch.nan


def _of_some_sizes(*operands: Any, **options: Any) -> Any:
    raise RuntimeError("head sizes above 256 are not supported")


class _WrongGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return given.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 1.1


def _wrongly_back(*operands: Any, **options: Any) -> Any:
    return _WrongGradients.apply(varlen_on_cpu(*operands, **options))


@pytest.mark.parametrize("kernel", [_across, _nothing, _of_some_sizes, _wrongly_back])
def test_a_kernel_that_computes_something_else_here_is_not_used(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "varlen_kernel", lambda: kernel)

    assert not admits_varlen_attention(made("llama", GROUPED), WIDTH, BF16)


def test_a_lack_of_memory_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*operands: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(module, "varlen_kernel", lambda: short)

    with pytest.raises(torch.OutOfMemoryError):
        admits_varlen_attention(made("llama", GROUPED), WIDTH, BF16)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("kind", ADMITTED)
def test_a_step_reads_nothing_from_the_device_and_its_loss_and_gradients_are_those_with_masks(
    kind: str, layers: int
) -> None:
    # given a model in training, and rows with padding
    model, count = made(*ADMITTED[kind]).train(), torch.tensor(60)
    options = {"num_items_in_batch": count, "use_cache": False}
    plain = model(**PadShared(2)(items()), **options).loss
    expected = torch.autograd.grad(plain, list(model.parameters()))
    # when the step is done with boundaries, its layers checkpointed or not
    batch = PadBounded(PadShared(2), rows=5, width=30)(items())
    del batch["filler_rows"]
    fast = Acceleration(varlen=True, fused=kind == "llama", checkpointing=Checkpointing(layers))
    with fast.training(model), Seen("_local_scalar_dense") as reads:
        loss = model(**batch, **options).loss
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    # then
    assert reads.calls == []
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float((mine - theirs).norm()) <= 1e-5 * max(1.0, float(theirs.norm()))


def test_with_masks_the_same_step_reads_from_the_device() -> None:
    model = made("llama", GROUPED)

    with Seen("_local_scalar_dense") as reads:
        model(**PadShared(2)(items()), use_cache=False)

    assert reads.calls


def test_the_reference_of_the_trial_is_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(40, heads, 8, generator=draw).requires_grad_() for heads in (6, 2, 2))
    bounds = torch.tensor([0, 7, 8, 30, 40, 40, 40], dtype=torch.int32)
    options: Any = {"scale": 0.3, "window_size": (-1, 0), "enable_gqa": True}

    mine = attend_by_text(query, key, value, bounds, bounds, 40, 40, **options)
    theirs = varlen_on_cpu(query, key, value, bounds, bounds, 40, 40, **options)

    assert torch.allclose(mine, theirs, atol=1e-6)
    weights = torch.randn(mine.shape, generator=draw)
    for one, other in zip(
        *(torch.autograd.grad(out, (query, key, value), weights) for out in (mine, theirs)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)
    with pytest.raises(ValueError, match="causal attention only"):
        attend_by_text(query, key, value, bounds, bounds, 40, 40, window_size=(-1, -1))


def test_without_boundaries_a_pass_is_one_over_full_blocks_and_afterwards_all_is_as_before() -> None:
    model, ids = made("llama", GROUPED).eval(), torch.randint(3, 100, (2, WIDTH))
    expected = model(input_ids=ids).logits

    with Acceleration(varlen=True).training(model):
        assert model.config._attn_implementation == NAME
        within = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        written = model.generate(input_ids=ids[:1, :5], max_new_tokens=4, do_sample=False)
    with pytest.raises(RuntimeError, match="stopped"), varlen_attention(model):
        raise RuntimeError("stopped")

    assert torch.allclose(within, expected, atol=1e-6)
    assert torch.equal(written, model.generate(input_ids=ids[:1, :5], max_new_tokens=4, do_sample=False))
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(input_ids=ids).logits, expected)


def test_under_autocast_the_kernel_is_given_16_bits_even_where_a_norm_returns_32() -> None:
    model, batch = made("qwen3", GROUPED), PadBounded(PadShared(2))(items())

    with varlen_attention(model), torch.autocast("cpu", torch.bfloat16), Seen("lmft_tests.varlen") as seen:
        model(**batch, use_cache=False)

    assert len(seen.calls) == 2, "one for each layer"
    assert {operand.dtype for call in seen.calls for operand in list(call.values())[:3]} == {torch.bfloat16}


@pytest.mark.parametrize(("heads", "shared", "size"), [(8, 8, 64), (8, 2, 64), (4, 1, 128)])
def test_torchs_own_function_takes_the_call_on_a_gpu(heads: int, shared: int, size: int) -> None:
    # given tensors of a GPU that only have shapes, as a layer makes them
    attention, layer = module._attention(varlen_kernel()), torch.nn.Module()
    with FakeTensorMode():
        query, key, value = (
            torch.empty(2, 128, number, size, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
            for number in (heads, shared, shared)
        )
        bounds = torch.empty(65, dtype=torch.int32, device="cuda")
        # when
        with Seen("_varlen_attn") as seen:
            out, _ = attention(layer, query, key, value, None, scaling=0.1, dropout=0.0, **{BOUNDARIES: bounds})
        # then its checks pass, and FlashAttention is given rows end to end, causal, within the boundaries
        assert (out.shape, out.dtype, out.device.type) == ((2, 128, heads, size), torch.bfloat16, "cuda")
        [given] = seen.calls
        operands = [given[name] for name in ("query", "key", "value")]
        assert [tuple(one.shape) for one in operands] == [(256, number, size) for number in (heads, shared, shared)]
        assert {one.stride(-1) for one in operands} == {1}
        assert given["cu_seq_q"] is given["cu_seq_k"] is bounds
        assert (given["max_q"], given["max_k"]) == (128, 128)
        assert (given["is_causal"], given["window_size"], given["scale"]) == (True, [-1, 0], 0.1)
        assert given["enable_gqa"] == (heads != shared)
        assert given["backend"] == torch.nn.attention.SDPBackend.FLASH_ATTENTION.value
        # and so does the operation beneath it, of which torch knows what comes back
        ops = torch.ops.aten
        beneath = ops._flash_attention_forward(
            *operands, bounds, bounds, 128, 128, 0.0, True, False, scale=0.1, window_size_left=-1, window_size_right=0
        )
        assert beneath[0].shape == operands[0].shape


def test_a_compiled_layer_is_one_graph_with_torchs_own_kernel_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "varlen_kernel", varlen_kernel)
    model, batch, found = made("llama", GROUPED), PadBounded(PadShared(2))(items()), []

    class CompiledError(Exception):
        """The kernel cannot run here."""

    def captured(graph: Any, examples: Any) -> Any:
        found.extend(node.args for node in graph.graph.nodes if "varlen_attn" in str(node.target))
        raise CompiledError

    for layer in model.model.layers:
        layer.compile(fullgraph=True, dynamic=False, backend=captured)
    with varlen_attention(model), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="CompiledError"):
            model(**batch, use_cache=False)

    [arguments] = found
    assert arguments[-1] == torch.nn.attention.SDPBackend.FLASH_ATTENTION.value
    assert arguments[5:8] == (WIDTH, WIDTH, True)
