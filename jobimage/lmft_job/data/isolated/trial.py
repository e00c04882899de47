"""Whether a model keeps texts apart that share a row, determined by trying it."""

from typing import Any

import numpy as np
import torch

from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import Item
from lmft_job.models.config import without_cache
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import NOTICEABLE, trying

_LENGTHS = (5, 9, 3)
_SHORT = (2, 3, 1)
"""For models of few positions."""
_MORE = 2


def keeps_apart(model: Any, usable: torch.Tensor, limit: int | None) -> bool:
    """Whether the logits of each text in a row equal those of the text alone.

    A model with states that run through a row (Mamba), or one whose code does not read positions, does not.

    Args:
        model: on the CPU, in FP32.
        usable: ids that can occur in text, 1-D.
        limit: tokens that the model takes.
    """
    lengths = next((some for some in (_LENGTHS, _SHORT) if limit is None or limit >= sum(some) + _MORE), None)
    if lengths is None:
        return False
    texts = [
        usable[(torch.arange(length) * 7 + number * 5) % len(usable)].numpy() for number, length in enumerate(lengths)
    ]
    batch = PadShared(int(usable[0]))([_item(texts), _item([*texts, texts[0][:_MORE]])])
    try:
        with trying(model, Arithmetic(next(model.parameters()).device)), without_cache(model):
            together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
            alone = [model(input_ids=torch.from_numpy(text)[None]).logits[0] for text in texts]
    except Exception as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        return False
    wanted = torch.cat(alone)
    return bool((together[: len(wanted)] - wanted).abs().max() <= NOTICEABLE * wanted.abs().max())


def _item(texts: list[Any]) -> Item:
    ids = np.concatenate(texts)
    return {"input_ids": ids, "labels": ids, "lengths": np.array([len(text) for text in texts])}
