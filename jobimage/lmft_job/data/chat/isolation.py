"""Whether a model keeps conversations apart that share a row, determined by trying it."""

from typing import Any

import numpy as np
import torch

from lmft_job.data.chat.rows import PadConversations
from lmft_job.data.rows import Item
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import NOTICEABLE, trying

_LENGTHS = (5, 9, 3)


def keeps_apart(model: Any, usable: torch.Tensor, limit: int | None) -> bool:
    """Whether the logits of each conversation in a pack equal those of the conversation alone.

    A model with states that run through a row (Mamba), or one whose code does not read positions, does not.

    Args:
        model: on the CPU, in FP32.
        usable: ids that can occur in text, 1-D.
        limit: tokens that the model takes.
    """
    if limit is not None and limit < sum(_LENGTHS) + 2:
        return False
    rows = [
        usable[(torch.arange(length) * 7 + number * 5) % len(usable)].numpy() for number, length in enumerate(_LENGTHS)
    ]
    collate = PadConversations(int(usable[0]))
    cached = getattr(model.config, "use_cache", None)
    model.config.use_cache = False  # as in training: with a cache, transformers does not look for conversations
    pack = collate([_item(rows), _item([*rows, rows[0][:2]])])
    try:
        with trying(model, Arithmetic(next(model.parameters()).device)):
            together = model(input_ids=pack["input_ids"], position_ids=pack["position_ids"]).logits[0]
            alone = [model(input_ids=torch.from_numpy(row)[None]).logits[0] for row in rows]
    except Exception as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        return False
    finally:
        model.config.use_cache = cached
    wanted = torch.cat(alone)
    return bool((together[: len(wanted)] - wanted).abs().max() <= NOTICEABLE * wanted.abs().max())


def _item(rows: list[Any]) -> Item:
    ids = np.concatenate(rows)
    return {"input_ids": ids, "labels": ids, "lengths": np.array([len(row) for row in rows])}
