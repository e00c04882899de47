"""How the code of a model, or of a user's trainer, computes its loss, determined by trying it on a few tokens.

Signatures do not show it: many heads accept ``num_items_in_batch`` and ignore it, and some heads for causal language
modelling neither shift the labels nor hide later tokens. Nothing here uses the global random state, changes a weight or
keeps a gradient.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic
from lmft_job.tasks.base import IGNORED

_TOKENS = 12
NOTICEABLE = 1e-4


@contextmanager
def trying(model: torch.nn.Module, arithmetic: Arithmetic) -> Iterator[None]:
    """Turns off dropout and gradients, and restores everything afterwards."""
    was_training, device = model.training, arithmetic.device
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            with arithmetic.context():
                yield
    finally:
        model.train(was_training)


def embedding_rows(model: Any) -> int:
    """Ids that a model has embeddings for. Read from the matrix: some embedding classes lack the count (I-BERT's)."""
    return int(model.get_input_embeddings().weight.shape[0])


def uses_item_count(trainer: Trainer, batch: dict[str, torch.Tensor], task: Task, arithmetic: Arithmetic) -> bool:
    """Whether a trainer divides a batch's loss by the number of targets passed to it, instead of the batch's own.

    Args:
        trainer: its ``compute_loss`` is tried, including a user's own.
        batch: one row is enough.
        task: if it masks tokens, every token of the row becomes a target; so it does in a row that has none.
        arithmetic: device and precision.
    """
    model: Any = trainer.model
    if tasks.of(task).masked or not bool((batch["labels"] != IGNORED).any()):
        batch = {**batch, "labels": batch["input_ids"]}
    batch = {name: value.to(arithmetic.device) for name, value in batch.items()}
    losses = []
    for count in (4, 8):
        with trying(model, arithmetic):
            items = torch.tensor(count, device=arithmetic.device)
            losses.append(float(trainer.compute_loss(model, dict(batch), num_items_in_batch=items)))  # type: ignore[arg-type]
    return not math.isclose(*losses, rel_tol=0.01)


def require_next_token(model: Any, task: Task, positions: int | None, usable: torch.Tensor | None = None) -> None:
    """Refuse a causal head that is not trained to predict the next token: it would report a perplexity near 1.

    Two passes over random ids. In the first nothing is a target; in the second only the first token is, which counts
    only if labels are not shifted, and the last id is changed, which earlier positions must not see. In FP32: BF16
    rounding, which in mixtures of experts depends on the other tokens, could be mistaken for a visible token.
    A model that cannot compute these is left to the evaluation, which reports the error.

    Args:
        model: on its device, in FP32.
        task: task of the run.
        positions: the longest input that it accepts.
        usable: ids that can occur in text, 1-D; None for all of the vocabulary.

    Raises:
        InvalidError: it scores each token against itself, or sees the token to predict.
    """
    length = min(_TOKENS, positions or _TOKENS)
    if usable is None:
        usable = torch.arange(embedding_rows(model))
    count = len(usable)
    chosen = torch.randint(count, (2, 1, length), generator=torch.Generator().manual_seed(0))
    chosen[1, :, :-1] = chosen[0, :, :-1]
    chosen[1, :, -1] = (chosen[0, :, -1] + count // 2) % count
    ids = usable[chosen]
    labels = torch.full_like(ids, IGNORED)
    labels[1, :, 0] = usable[(chosen[1, :, 0] + count // 2) % count]
    arithmetic = Arithmetic(next(model.parameters()).device)
    ids, labels = ids.to(arithmetic.device), labels.to(arithmetic.device)
    losses, seen = [], []
    try:
        for number in range(2):
            with trying(model, arithmetic):
                output = model(input_ids=ids[number], labels=labels[number])
            losses.append(float(output.loss))
            seen.append(output.logits[:, : length - 1].float())
        ahead, scale = float((seen[1] - seen[0]).abs().max()), float(seen[0].abs().max())
    except Exception:  # noqa: BLE001 - any exception of the model's code is raised again shortly
        return
    nothing, first = losses
    wrong = None
    if math.isfinite(first) and not (math.isfinite(nothing) and abs(first - nothing) < 0.1):
        wrong = "its loss scores each token against itself, not against the next one"
    elif ahead > NOTICEABLE * scale:
        wrong = "it sees the token to predict"
    if wrong:
        raise InvalidError([tasks.of(task).misfit(model.config.model_type, wrong)])


def pads_left(model: Any, pad_id: int, *, wanted: bool) -> bool:
    """On which side to pad rows of a classifier, so that a row's result does not depend on the other rows of its batch.

    Most models accept either side; models that count positions from the first token, such as GPT-2, give other results
    with padding before it, and models that use the last token, such as XLNet, with padding after it.

    Args:
        model: on its device; its result for a row alone is compared with the result for the padded row.
        pad_id: id of the padding token.
        wanted: the tokenizer's side; used if it changes nothing, or if the other side changes results too.
    """
    device = next(model.parameters()).device
    try:
        vocabulary = embedding_rows(model)
    except (AttributeError, NotImplementedError):
        return wanted  # Perceiver, for example, returns something else as its input embeddings
    row = torch.randint(vocabulary, (1, 4), generator=torch.Generator().manual_seed(0))
    row[row == pad_id] = (pad_id + 1) % vocabulary
    pads = torch.full((1, 3), pad_id)

    def answer(*parts: torch.Tensor) -> torch.Tensor:
        ids = torch.cat(parts, 1).to(device)
        mask = torch.cat([torch.full_like(part, int(part is row)) for part in parts], 1).to(device)
        with trying(model, Arithmetic(device)):
            return model(input_ids=ids, attention_mask=mask).logits.float()  # type: ignore[no-any-return]

    try:
        alone = answer(row)
        kept = {left: _same(alone, answer(pads, row) if left else answer(row, pads)) for left in (wanted, not wanted)}
    except Exception:  # noqa: BLE001 - any exception of the model's code is reported by the evaluation shortly
        return wanted
    return wanted if kept[wanted] or not kept[not wanted] else not wanted


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one - other).abs() <= NOTICEABLE + 10 * NOTICEABLE * one.abs()).all())
