"""Texts as rows with a label each, cut where the model takes no more."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmft_api.reasons import Reason
from lmft_job.data.labels import number_labels
from lmft_job.data.problems import Problems
from lmft_job.data.rows import RowWriter
from lmft_job.data.sides import Side, Sides
from lmft_job.data.tokens.packing import Check, encoded, split_ids
from lmft_job.data.tokens.writer import Written
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers


class LabelledTexts:
    """Writes the texts of a side with the numbers of their labels.

    Args:
        tokenizer: of the run.
        sides: both, since the classes are those of both.
        label_field: for messages.
        of_model: class names of the model, in its order.
        limit: tokens at which texts are cut; None for no limit.
        problems: receives what is wrong with the labels.
        check: called often.

    Raises:
        InvalidError: the labels are not classes.
    """

    def __init__(
        self, tokenizer: Any, sides: Sides, label_field: str, of_model: Sequence[str], limit: int | None,
        problems: Problems, check: Check,
    ) -> None:  # fmt: skip
        train, held_out = ([side.corpus.labels[row] for row in side.kept.tolist()] for side in sides)
        names = sides.train.corpus.label_names
        self._classes = number_labels(train, held_out, names, label_field, problems, of_model)
        if problems.found:
            raise InvalidError(problems.all(), Reason.DATASET_INVALID)
        self._numbers = {sides.train.name: self._classes.train, sides.held_out.name: self._classes.held_out}
        self._tokenizer = tokenizer
        self._limit = limit
        self._check = check

    def write(self, path: Path, side: Side, texts: Iterator[list[str]]) -> Written:
        """Tokenise, cut and write."""
        whole, kept = [], []
        numbers = iter(self._numbers[side.name])
        with RowWriter(path, tokenizers.id_count(self._tokenizer)) as writer:
            for batch in encoded(self._tokenizer, texts, self._check, self._limit):
                for row in split_ids(batch.ids, batch.lengths):
                    writer.add(row, next(numbers))
                whole.append(batch.whole)
                kept.append(batch.lengths)
        lengths, used = np.concatenate(whole), np.concatenate(kept)
        return Written(len(side.kept), int(used.sum()), lengths, cut=int((lengths > used).sum()))

    def refuse(self, train: Written, held_out: Written) -> None:
        """Any number of rows can be trained on."""

    def figures(self, train: Written, held_out: Written) -> dict[str, Any]:
        """Texts that were cut, and the names of the classes."""
        return {
            "train_cut_rows": train.cut,
            "eval_cut_rows": held_out.cut,
            "longest_input": self._limit,
            "labels": self._classes.names,
        }
