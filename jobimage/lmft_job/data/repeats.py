"""Whether held-out texts stand in the training data too, word for word; figures on such rows are no test."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class Repeats:
    """Counts held-out texts that the training texts hold; 9 bytes of memory for each held-out one."""

    def __init__(self, held_out: Iterator[list[str]]) -> None:
        parts = [_hashes(batch) for batch in held_out]
        self._held = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        self._seen = np.zeros(len(self._held), bool)

    def watch(self, train: Iterator[list[str]]) -> Iterator[list[str]]:
        """The same batches; their texts are looked up as they pass."""
        for batch in train:
            if len(self._held):
                hashes = _hashes(batch)
                places = np.searchsorted(self._held, hashes).clip(max=len(self._held) - 1)
                self._seen[places[self._held[places] == hashes]] = True
            yield batch

    @property
    def count(self) -> int:
        """Held-out texts seen so far; equal ones count each."""
        first = np.searchsorted(self._held, self._held)
        return int(self._seen[first].sum())


def _hashes(texts: list[str]) -> npt.NDArray[np.int64]:
    # 64 bits, drawn again for each process: a collision of two texts by chance is negligible.
    return np.fromiter(map(hash, texts), np.int64, len(texts))
