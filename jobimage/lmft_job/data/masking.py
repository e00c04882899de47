"""Masks for masked language modelling, each a pure function of seed, epoch and row.

Trainer restores the random state only after it has collated the first batch of a resumed run, so masks drawn from a
global generator would differ there. Here no random state is used: Philox (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011) is a counter-based generator, keyed by (seed, epoch) and started at the row.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmft_api.reasons import Reason
from lmft_job.data.rows import BlockRows, Ids, Item
from lmft_job.errors import InvalidError
from lmft_job.tasks.base import IGNORED

EVALUATION_EPOCH = (1 << 64) - 1
"""Takes the place of the epoch in the masks of held-out blocks, which are the same at every evaluation."""
_KEEP_BELOW = int(0.1 * 2**32)
_REPLACE_BELOW = int(0.2 * 2**32)


class Masker:
    """BERT's masking (Devlin et al., 2019): 80 % of the chosen tokens become the mask, 10 % another token, 10 % stay.

    Args:
        seed: seed of the run.
        probability: share of tokens to choose.
        vocabulary: ids below this may replace a token.
        mask_id: id of the mask token.
        special_ids: ids that are never chosen.
    """

    def __init__(self, seed: int, probability: float, vocabulary: int, mask_id: int, special_ids: list[int]) -> None:
        self.seed = seed
        self.probability = probability
        self.vocabulary = vocabulary
        self.mask_id = mask_id
        self.special_ids = np.array(sorted(set(special_ids)), np.int64)

    def __call__(self, ids: Ids, epoch: int, row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Inputs and labels of one block of ids (1-D, int64); labels are -100 where nothing is predicted."""
        length = len(ids)
        # numpy guarantees that random_raw's stream stays the same; it does not for the distributions built on it.
        key, counter = np.array([self.seed, epoch], np.uint64), np.array([0, 0, row, 0], np.uint64)
        raw = np.random.Philox(key=key, counter=counter).random_raw(2 * length)
        chosen = raw[:length] < np.uint64(int(self.probability * 2**64))
        chosen &= ~np.isin(ids, self.special_ids)
        fate, substitute = raw[length:] >> np.uint64(32), raw[length:] & np.uint64(0xFFFFFFFF)
        labels = np.where(chosen, ids, IGNORED)
        inputs = ids.copy()
        inputs[chosen & (fate >= _REPLACE_BELOW)] = self.mask_id
        replaced = chosen & (fate < _REPLACE_BELOW) & (fate >= _KEEP_BELOW)
        inputs[replaced] = ((substitute[replaced] * np.uint64(self.vocabulary)) >> np.uint64(32)).astype(np.int64)
        return inputs, labels


class MaskedBlocks(BlockRows):
    """Packed blocks for masked language modelling: ``input_ids`` with masks, and ``labels``.

    Args:
        path: the Arrow file.
        masker: draws the masks.
        fixed: use the same masks at every reading (evaluation); otherwise those of the epoch that the index carries.
    """

    def __init__(self, path: Path, masker: Masker, *, fixed: bool) -> None:
        self.masker = masker
        self.fixed = fixed
        super().__init__(path)

    def __getitem__(self, index: int) -> Item:
        epoch, row = divmod(index, len(self))
        inputs, labels = self.masker(self.block(row), EVALUATION_EPOCH if self.fixed else epoch, row)
        return {"input_ids": inputs, "labels": labels}


def require_masks(held_out: MaskedBlocks) -> None:
    """Refuse held-out blocks without a single masked token: there would be nothing to measure.

    Raises:
        InvalidError: with what to change.
    """
    if not any(bool((held_out[row]["labels"] != IGNORED).any()) for row in range(len(held_out))):
        raise InvalidError(
            [
                f"spec.dataset.maskProbability: at {held_out.masker.probability:g} no token of the {len(held_out)} "
                "held-out blocks is masked, so nothing can be measured. Hold out more (testPercent, more data), or "
                "raise it"
            ],
            Reason.DATASET_INVALID,
        )
