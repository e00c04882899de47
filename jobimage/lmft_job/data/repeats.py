"""Whether held-out texts also occur in the training data, word for word; figures on such rows test nothing."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class Repeats:
    """Counts held-out texts that also occur in training; 9 bytes of memory for each held-out text."""

    def __init__(self, held_out: Iterator[list[str]]) -> None:
        parts = [_hashes(batch) for batch in held_out]
        self._held = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        self._seen = np.zeros(len(self._held), bool)

    def watch(self, train: Iterator[list[str]]) -> Iterator[list[str]]:
        """Passes the batches on unchanged, and looks their texts up."""
        for batch in train:
            if len(self._held):
                hashes = _hashes(batch)
                places = np.searchsorted(self._held, hashes).clip(max=len(self._held) - 1)
                self._seen[places[self._held[places] == hashes]] = True
            yield batch

    @property
    def count(self) -> int:
        """Number of held-out texts seen so far; duplicates count each."""
        first = np.searchsorted(self._held, self._held)
        return int(self._seen[first].sum())


def _hashes(texts: list[str]) -> npt.NDArray[np.int64]:
    # 64 bits, with a new key for each process: the chance of a collision of two texts is negligible.
    return np.fromiter(map(hash, texts), np.int64, len(texts))
