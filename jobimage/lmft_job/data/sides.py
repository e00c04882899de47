"""The two sides of a data set: the rows to train on, and those held out to evaluate on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lmft_api.reasons import Reason
from lmft_api.spec.resolved import DatasetSettings, Settings
from lmft_job.data.problems import Problems
from lmft_job.data.sources.source import DataSource
from lmft_job.data.sources.splits import Indices, hold_out, parse
from lmft_job.data.text.corpus import Corpus, Reader, collect
from lmft_job.data.tokens.packing import Check
from lmft_job.errors import InvalidError

TOOLS = "tools"
"""Column beside a conversation with the tools that it may call."""


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: ``training`` or ``held-out``.
        purpose: what its rows are for, in words.
        field: field of ``spec.dataset`` that chooses its rows.
        corpus: texts, those of other rows too.
        rows: numbers of its rows in the corpus.
    """

    name: str
    purpose: str
    field: str
    corpus: Corpus
    rows: Indices

    @cached_property
    def kept(self) -> Indices:
        """Those of the rows that have a text and, if required, a label."""
        return self.corpus.usable(self.rows)

    @property
    def dropped(self) -> int:
        """How many rows have none."""
        return len(self.rows) - len(self.kept)

    def texts(self) -> Iterator[list[str]]:
        """Texts of the kept rows, in batches."""
        return self.corpus.texts.batches(self.kept)


@dataclass(frozen=True)
class Sides:
    """Both sides."""

    train: Side
    held_out: Side

    def __iter__(self) -> Iterator[Side]:
        return iter((self.train, self.held_out))


def load_sides(
    settings: Settings, source: DataSource, reader: Reader, scratch: Path, problems: Problems, check: Check
) -> Sides | None:
    """Both sides of the data: their texts, and the rows to use; None if a split cannot be made.

    Args:
        settings: settings of the run.
        source: where the rows come from.
        reader: takes from a row what is trained on.
        scratch: for the texts.
        problems: receives what is wrong.
        check: called often; raises if a stop was requested.
    """
    chosen = settings.dataset
    wanted = (*reader.fields.values(), TOOLS) if chosen.has_conversations else tuple(reader.fields.values())
    read: dict[str, Corpus] = {}

    def corpus(split: str) -> Corpus:
        if split not in read:
            rows = source.rows(split, wanted, chosen.label_field, problems)
            folder = scratch / f"split-{len(read)}"
            read[split] = collect(rows, folder, reader, chosen.label_field, problems, check)
        return read[split]

    def part(split: str, field: str) -> tuple[Corpus, Indices] | None:
        if source.sliced:
            taken = corpus(split)
            return taken, np.arange(len(taken.texts), dtype=np.int64)
        found = parse(split)
        if found is None:
            problems.add(f"spec.dataset.{field}: {split!r} is not a split; write train, train[:5000] or train[80%:]")
            return None
        if found.name != "train":
            problems.add(
                f"spec.dataset.{field}: {source.title} has one split, train, not {found.name!r}; "
                "cut it with slices such as train[:80%] and train[80%:]"
            )
            return None
        taken = corpus(found.name)
        return taken, found.indices(len(taken.texts))

    train = part(chosen.split, "split")
    if chosen.eval_split is not None:
        held_out = part(chosen.eval_split, "evalSplit")
        if train is None or held_out is None:
            return None
        if shared := _shared_rows(train, held_out):
            problems.add(
                f"spec.dataset.evalSplit: {chosen.eval_split!r} has {shared:,} of the rows that {chosen.split!r} "
                "trains on; separate them, as with split train[:90%] and evalSplit train[90%:], or set testPercent"
            )
        return _sides(chosen, train, held_out)
    if train is None:
        return None
    taken, rows = train
    first, second = hold_out(len(rows), chosen.test_percent or 0, settings.training.seed)
    return _sides(chosen, (taken, rows[first]), (taken, rows[second]))


def _sides(chosen: DatasetSettings, train: tuple[Corpus, Indices], held_out: tuple[Corpus, Indices]) -> Sides:
    return Sides(
        Side("training", "to train on", "split", *train),
        Side("held-out", "to evaluate on", "evalSplit" if chosen.eval_split else "testPercent", *held_out),
    )


def _shared_rows(train: tuple[Corpus, Indices], held_out: tuple[Corpus, Indices]) -> int:
    """How many rows are on both sides, as far as the source can tell where its rows come from."""
    (one, rows), (other, held_rows) = train, held_out
    if not (one.spans and other.spans):
        return len(np.intersect1d(rows, held_rows)) if one is other else 0
    return sum(
        max(0, min(end, held_end) - max(start, held_start))
        for name, start, end in one.spans
        for held_name, held_start, held_end in other.spans
        if name == held_name
    )


def refuse_empty(sides: Sides, chosen: DatasetSettings) -> None:
    """Raises InvalidError if a side has no rows."""
    what = " and ".join(repr(path) for path in (*chosen.fields, chosen.label_field) if path)
    problems = []
    for side in sides:
        if len(side.rows) == 0:
            problems.append(f"spec.dataset.{side.field}: there are no rows {side.purpose}")
        elif len(side.kept) == 0:
            problems.append(
                f"spec.dataset.{side.field}: none of the {len(side.rows):,} rows {side.purpose} has "
                f"{'a conversation' if chosen.has_conversations else 'a value'} in {what}"
            )
    if problems:
        raise InvalidError(problems, Reason.DATASET_INVALID)
