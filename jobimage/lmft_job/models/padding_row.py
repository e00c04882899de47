"""The padding token's row in tied embeddings, which transformers sets to zero for some models on every load.

Some model types (I-BERT, Funnel, Youtu and more) zero that row on every load, even if the weights are complete. If the
output embeddings are the same matrix, training changes the row, and the published model would be loaded as another
model than the one that was evaluated. So the row stays zero from the first step on.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import PreTrainedModel, initialization

_HELD = "padding_row_held"


def hold_padding_row(model: Any) -> list[str]:
    """Keep the row at zero if loading zeroes it; returns a note on that, or nothing if loading leaves it unchanged."""
    embeddings = _tied_embeddings(model)
    row = getattr(embeddings, "padding_idx", None)
    if embeddings is None or row is None or not _is_zeroed(model, embeddings, row):
        return []
    with torch.no_grad():
        embeddings.weight[row] = 0
    mark_held(model)
    # A zero gradient leaves a zero weight at zero in every optimizer, with decay and without.
    embeddings.weight.register_hook(
        lambda gradient: gradient.index_fill(0, torch.tensor([row], device=gradient.device), 0)
    )
    said = (
        f"the embedding of the padding token (id {row}) stays at zero: transformers sets it so whenever it loads a "
        f"model of type {model.config.model_type} with tied embeddings"
    )
    if row == getattr(model.config.get_text_config(), "eos_token_id", None):
        said += "; it ends texts too, and is not learned: to learn it, set tie_word_embeddings: false"
    return [said]


def is_held(model: Any) -> bool:
    """Whether the row is kept at zero in this model."""
    return bool(getattr(_input_embeddings(model), _HELD, False))


def mark_held(model: Any) -> None:
    """Say that the row is kept at zero, of a model without memory for its weights: only these tell."""
    setattr(_input_embeddings(model), _HELD, True)


def hold_divided(model: Any, rows: Callable[[int], tuple[int, int]]) -> None:
    """Keep the row at zero in a model whose weights have been divided among processes, if it was before.

    FSDP2 puts new weights in the place of those that the hook of :func:`hold_padding_row` is on, and gives them their
    gradients by itself: it calls only hooks for gradients that are complete.

    Args:
        model: divided, or whole.
        rows: the first row of this process's part of a weight with so many rows, and the row after its last.
    """
    embeddings = _input_embeddings(model)
    if not is_held(model) or not embeddings.weight.requires_grad:
        return
    row = embeddings.padding_idx
    first, end = rows(embeddings.weight.shape[0])

    def zero(weight: Any) -> None:
        weight.grad.to_local()[row - first] = 0

    if first <= row < end:
        embeddings.weight.register_post_accumulate_grad_hook(zero)


def _input_embeddings(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _tied_embeddings(model: Any) -> Any | None:
    """The input embeddings, if the output embeddings are the same matrix."""
    embeddings = _input_embeddings(model)
    try:
        output = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return embeddings if output is not None and output.weight is getattr(embeddings, "weight", None) else None


def _with_owners(model: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """The modules around a module and itself, from outside, each with the model in the model that initialises it."""
    owner, parts = model, name.split(".")
    for end in range(1, len(parts) + 1):
        module = model.get_submodule(".".join(parts[:end]))
        owner = module if isinstance(module, PreTrainedModel) else owner
        yield owner, module


def _is_zeroed(model: Any, embeddings: Any, row: int) -> bool:
    """Tries what loading does: it initialises every module, except for weights that are marked as loaded."""
    name = next((name for name, module in model.named_modules() if module is embeddings), None)
    if name is None:
        return False
    around = list(_with_owners(model, name))
    weights = list(model.parameters())
    marks = [getattr(weight, "_is_hf_initialized", None) for weight in weights]
    before = embeddings.weight[row].detach().clone()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), initialization.guard_torch_init_functions():
            for weight in weights:
                weight._is_hf_initialized = True
            embeddings.weight[row] = 1
            for owner, module in reversed(around):
                owner._init_weights(module)
        return bool((embeddings.weight[row] == 0).all())
    finally:
        with torch.no_grad():
            embeddings.weight[row] = before
        for weight, mark in zip(weights, marks, strict=True):
            if mark is None:
                del weight._is_hf_initialized
            else:
                weight._is_hf_initialized = mark
