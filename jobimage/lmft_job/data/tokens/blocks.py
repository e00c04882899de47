"""Texts as blocks: joined, and cut into blocks of one length."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmft_api.reasons import Reason
from lmft_job.data.isolated.blocks import DocumentBlockWriter
from lmft_job.data.rows import BlockWriter
from lmft_job.data.sides import Side
from lmft_job.data.tokens.packing import Check, pack
from lmft_job.data.tokens.writer import Written
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers


class BlockTexts:
    """Packs the texts of a side into blocks of ``size`` tokens; ``isolated`` keeps where each text begins."""

    def __init__(self, tokenizer: Any, size: int, check: Check, *, isolated: bool) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._check = check
        self._isolated = isolated

    def write(self, path: Path, side: Side, texts: Iterator[list[str]]) -> Written:
        """Tokenise and pack."""
        kind = DocumentBlockWriter if self._isolated else BlockWriter
        with kind(path, self._size, tokenizers.id_count(self._tokenizer)) as writer:
            lengths = pack(self._tokenizer, texts, writer, self._check)
        targets = writer.targets if isinstance(writer, DocumentBlockWriter) else None
        return Written(len(side.kept), writer.blocks * self._size, lengths, writer.blocks, more=targets)

    def refuse(self, train: Written, held_out: Written) -> None:
        """Raises InvalidError for a side that fills no block, or whose documents have nothing to predict."""
        problems = []
        for name, side in (("training", train), ("held-out", held_out)):
            if side.blocks == 0:
                problems.append(
                    f"spec.dataset.blockSize: the {name} texts have {int(side.lengths.sum()):,} tokens, fewer than one "
                    f"block of {self._size}; use more data or a smaller block"
                )
            elif side.more == 0:
                problems.append(
                    f"spec.dataset.isolateDocuments: every one of the {name} documents is a single token, with none "
                    "before it to predict it from; remove it, or choose a field with longer texts"
                )
        if problems:
            raise InvalidError(problems, Reason.DATASET_INVALID)

    def figures(self, train: Written, held_out: Written) -> dict[str, Any]:
        """Blocks, tokens that filled none, and the targets of isolated documents."""
        tokens = int(train.lengths.sum() + held_out.lengths.sum())
        return {
            "train_blocks": train.blocks,
            "eval_blocks": held_out.blocks,
            "dropped_tokens": tokens - train.tokens - held_out.tokens,
            "train_targets": train.more,
            "eval_targets": held_out.more,
        }
