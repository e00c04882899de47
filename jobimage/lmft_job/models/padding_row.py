"""The padding token's row in tied embeddings, which transformers sets to zero for some models on every load.

Some model types (I-BERT, Funnel, Youtu and more) zero that row on every load, even if the weights are complete. If the
output embeddings are the same matrix, training changes the row, and the published model would be loaded as another
model than the one that was evaluated. So the row stays zero from the first step on.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel, initialization


def hold_padding_row(model: Any) -> list[str]:
    """Keep the row at zero if loading zeroes it; returns a note on that, or nothing if loading leaves it unchanged."""
    embeddings = _tied_embeddings(model)
    row = getattr(embeddings, "padding_idx", None)
    if embeddings is None or row is None or not _is_zeroed(model, embeddings, row):
        return []
    with torch.no_grad():
        embeddings.weight[row] = 0
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


def _tied_embeddings(model: Any) -> Any | None:
    """The input embeddings, if the output embeddings are the same matrix."""
    try:
        embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
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
