"""What turns the texts of a side into rows on disk: blocks, labelled rows or conversations."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lmft_job.data.sides import Side
from lmft_job.data.tokens.packing import Lengths


@dataclass(frozen=True)
class Written:
    """One side on disk.

    Attributes:
        rows: rows that were used.
        tokens: tokens on disk.
        lengths: tokens of each text, before it was cut.
        blocks: blocks of one length; None where rows are not joined.
        cut: texts that were cut; None where none is.
        more: what only one kind of row has.
    """

    rows: int
    tokens: int
    lengths: Lengths
    blocks: int | None = None
    cut: int | None = None
    more: Any = None


class Writer(Protocol):
    """Writes both sides, one after the other."""

    def write(self, path: Path, side: Side, texts: Iterator[list[str]]) -> Written:
        """Write a side's kept rows, given as their texts."""

    def refuse(self, train: Written, held_out: Written) -> None:
        """Raise InvalidError if what was written cannot be trained on."""

    def figures(self, train: Written, held_out: Written) -> dict[str, Any]:
        """Fields of :class:`lmft_api.wire.report.DatasetFigures` that only these rows have."""
