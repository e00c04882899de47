"""Making a prepared data set: load → split → flatten/join → (train a tokenizer) → tokenise → pack, into a folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft_api.reasons import Reason
from lmft_api.spec import BadRows
from lmft_api.spec.resolved import Settings
from lmft_api.wire.layout import PREPARED
from lmft_api.wire.report import DatasetFigures
from lmft_job.data.chat.messages.reader import ConversationReader, words
from lmft_job.data.chat.messages.wrong import BadRowsFound
from lmft_job.data.chat.writing import ConversationTexts
from lmft_job.data.problems import Problems
from lmft_job.data.repeats import Repeats
from lmft_job.data.sides import Sides, load_sides, refuse_empty
from lmft_job.data.sources.source import DataSource
from lmft_job.data.text.corpus import TextReader
from lmft_job.data.tokens.blocks import BlockTexts
from lmft_job.data.tokens.labelled import LabelledTexts
from lmft_job.data.tokens.lengths import summary as summary_of
from lmft_job.data.tokens.packing import Check
from lmft_job.data.tokens.writer import Writer
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers

TOKENIZER = "tokenizer"
TRAIN = "train.arrow"
HELD_OUT = "eval.arrow"


def problems_of_spec(settings: Settings, max_positions: int | None) -> list[str]:
    """Problems that can be found before the data is read."""
    chosen = settings.dataset
    field, size = ("maxLength", chosen.max_length) if chosen.has_conversations else ("blockSize", chosen.block_size)
    if size is None or max_positions is None or size <= max_positions:
        return []
    return [
        f"spec.dataset.{field}: {size} is more than the {max_positions} positions of the model; "
        f"set at most {max_positions}"
    ]


@dataclass(frozen=True)
class Making:
    """What a prepared data set is made of.

    Attributes:
        settings: settings of the run.
        source: where the rows come from.
        tokenizer: ready for the task (see :func:`lmft_job.models.build.ready_tokenizer`); None trains one.
        settle: gives a trained tokenizer what the run needs besides its words.
        max_positions: where texts are cut, and the longest block: the smaller of the model's and the tokenizer's limit.
        model_labels: names that the model gives its classes, in its order.
        packs: whether the model keeps conversations apart that share a row.
        day: the run's first day, for chat templates that write the date.
        check: called often; raises if a stop was requested.
    """

    settings: Settings
    source: DataSource
    tokenizer: Any | None
    settle: Callable[[Any], Any]
    max_positions: int | None
    model_labels: Sequence[str]
    packs: bool
    day: str
    check: Check


def make(folder: Path, scratch: Path, making: Making, *, fingerprint: str, spec_problems: list[str]) -> None:
    """Prepare a data set in a folder.

    Args:
        folder: empty; gets the rows, the tokenizer and the summary.
        scratch: for temporary texts.
        making: what it is made of.
        fingerprint: stored with the figures.
        spec_problems: problems found already, to be reported together with those of the data.

    Raises:
        InvalidError: every problem found.
    """
    settings, source, check = making.settings, making.source, making.check
    chosen, problems = settings.dataset, Problems()

    # Load, flatten and join.
    bad = BadRowsFound(problems, drop=chosen.bad_rows == BadRows.DROP)
    reader = ConversationReader(chosen, bad) if chosen.has_conversations else TextReader(chosen.fields[0], problems)
    sides = load_sides(settings, source, reader, scratch, problems, check)
    if sides is None or problems.found or spec_problems:
        raise InvalidError(
            spec_problems + problems.all(), Reason.DATASET_INVALID if problems.found else Reason.INVALID_SPEC
        )

    # Drop rows without text.
    refuse_empty(sides, chosen)

    # Train a tokenizer, if there is none.
    tokenizer = making.tokenizer
    wanted = trained_size(settings) if tokenizer is None else None
    if tokenizer is None:
        texts = (words(batch) if chosen.has_conversations else batch for batch in _checked(sides.train.texts(), check))
        tokenizer = making.settle(tokenizers.train(texts, wanted or 0, settings.task, making.max_positions))
        check()

    # Tokenise, and pack or pad.
    writer = _writer(making, tokenizer, sides, scratch, problems, bad)
    repeats = Repeats(_checked(sides.held_out.texts(), check))
    train = writer.write(folder / TRAIN, sides.train, repeats.watch(sides.train.texts()))
    held_out = writer.write(folder / HELD_OUT, sides.held_out, sides.held_out.texts())
    writer.refuse(train, held_out)

    # Store the figures.
    own = writer.figures(train, held_out)
    limit = chosen.block_size or own.get("longest_input")
    limit = own["conversations"].max_length if chosen.has_conversations else limit
    figures = DatasetFigures(
        name=source.title,
        train_rows=train.rows,
        eval_rows=held_out.rows,
        dropped_rows=sum(side.dropped for side in sides),
        train_tokens=train.tokens,
        eval_tokens=held_out.tokens,
        lengths=summary_of(train.lengths, limit),
        eval_rows_in_train=repeats.count,
        look_alike=sides.train.corpus.look_alike or sides.held_out.corpus.look_alike,
        vocabulary=None if wanted is None else len(tokenizer),
        wanted_vocabulary=wanted,
        fingerprint=fingerprint,
        **own,
    )
    summary = {"noun": source.noun, "figures": figures.model_dump(mode="json")}
    tokenizers.fast_core(tokenizer).no_truncation()  # type: ignore[union-attr]
    tokenizer.save_pretrained(str(folder / TOKENIZER))
    (folder / PREPARED).write_text(json.dumps(summary, indent=1))


def _writer(
    making: Making, tokenizer: Any, sides: Sides, scratch: Path, problems: Problems, bad: BadRowsFound
) -> Writer:
    """What a row of the data becomes."""
    chosen, limit, check = making.settings.dataset, making.max_positions, making.check
    if chosen.has_conversations:
        return ConversationTexts(
            chosen, tokenizer, limit=limit, packs=making.packs, day=making.day, scratch=scratch, problems=problems,
            bad=bad, check=check,
        )  # fmt: skip
    if chosen.block_size is not None:
        return BlockTexts(tokenizer, chosen.block_size, check, isolated=bool(chosen.isolate_documents))
    field = chosen.label_field or ""
    return LabelledTexts(tokenizer, sides, field, making.model_labels, limit, problems, check)


def _checked(batches: Iterator[list[str]], check: Check) -> Iterator[list[str]]:
    for batch in batches:
        check()
        yield batch


def trained_size(settings: Settings) -> int:
    """Vocabulary of the tokenizer to train."""
    wanted = settings.model.tokenizer.train_vocab_size if settings.model.tokenizer else None
    if wanted is None:
        raise InvalidError(["spec.model.tokenizer: neither name nor trainVocabSize is set; set one of them"])
    return wanted
