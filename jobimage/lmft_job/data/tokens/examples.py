"""Training rows as text, for people who want to see what the model sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmft_api.wire.report import RowSegment
from lmft_job.data.chat.masks import MarkedRow
from lmft_job.data.chat.rows import ConversationRows
from lmft_job.data.chat.writing import segments
from lmft_job.data.masking import MaskedBlocks
from lmft_job.data.rows import LabelledRows, Rows
from lmft_job.tasks.base import IGNORED


def row_segments(rows: Rows, tokenizer: Any, labels: Sequence[str], number: int, most: int) -> list[RowSegment]:
    """A row in runs of tokens, special ones included, that are predicted or not; cut after ``most`` characters.

    A masked row is as in the first epoch. A row with a label ends with its name. In a block nothing is marked, for
    every token of it is predicted.
    """
    if isinstance(rows, ConversationRows):
        return segments(tokenizer, rows.marked(number), most)
    row = rows[number]
    ids = np.asarray(row["input_ids"])
    masked = isinstance(rows, MaskedBlocks)
    predicted = np.asarray(row["labels"]) != IGNORED if masked else np.zeros(len(ids), bool)
    shown = segments(tokenizer, MarkedRow(ids, predicted, ()), most)
    if isinstance(rows, LabelledRows):
        shown += [RowSegment(text=" → ", trained=False), RowSegment(text=labels[row["labels"]], trained=True)]
    return shown
