"""Making a prepared data set: load → split → flatten/join → (train a tokenizer) → tokenise → pack, into a folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmft_api.reasons import Reason
from lmft_api.spec.resolved import Settings
from lmft_api.wire.layout import PREPARED
from lmft_api.wire.report import DatasetFigures, TextLengths
from lmft_job.data.labels import Classes, number_labels
from lmft_job.data.problems import Problems
from lmft_job.data.repeats import Repeats
from lmft_job.data.rows import BlockWriter, RowWriter
from lmft_job.data.sources.source import DataSource
from lmft_job.data.sources.splits import Indices, hold_out, parse
from lmft_job.data.text.corpus import Corpus, collect
from lmft_job.data.tokens.packing import Check, Lengths, encoded, pack, split_ids
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers

TOKENIZER = "tokenizer"
TRAIN = "train.arrow"
HELD_OUT = "eval.arrow"


def problems_of_spec(settings: Settings, max_positions: int | None) -> list[str]:
    """Problems that can be found before the data is read."""
    problems = []
    size = settings.dataset.block_size
    if size is not None and max_positions is not None and size > max_positions:
        problems.append(
            f"spec.dataset.blockSize: {size} is more than the {max_positions} positions of the model; "
            f"set at most {max_positions}"
        )
    return problems


def make(
    folder: Path,
    scratch: Path,
    settings: Settings,
    source: DataSource,
    tokenizer: Any | None,
    max_positions: int | None,
    fingerprint: str,
    spec_problems: list[str],
    check: Check,
    model_labels: Sequence[str] = (),
) -> None:
    """Prepare a data set in a folder.

    Args:
        folder: empty; gets the rows, the tokenizer and the summary.
        scratch: for temporary texts.
        settings: settings of the run.
        source: where the rows come from.
        tokenizer: ready for the task (see :func:`lmft_job.models.build.ready_tokenizer`); None trains one.
        max_positions: where texts are cut, and the longest block: the smaller of the model's and the tokenizer's limit.
        fingerprint: stored with the figures.
        spec_problems: problems found already, to be reported together with those of the data.
        check: called often; raises if a stop was requested.
        model_labels: names that the model gives its classes, in its order.

    Raises:
        InvalidError: every problem found.
    """
    chosen = settings.dataset
    problems = Problems()

    # Load, flatten and join.
    sides = _load(settings, source, scratch, problems, check)
    if sides is None or problems.found or spec_problems:
        raise InvalidError(
            spec_problems + problems.all(), Reason.DATASET_INVALID if problems.found else Reason.INVALID_SPEC
        )
    (train, train_rows), (held_out, held_out_rows) = sides

    # Drop rows without text.
    train_kept, held_out_kept = train.usable(train_rows), held_out.usable(held_out_rows)
    dropped = len(train_rows) + len(held_out_rows) - len(train_kept) - len(held_out_kept)
    _refuse_empty(settings, train_rows, held_out_rows, train_kept, held_out_kept)

    # Train a tokenizer, if there is none.
    wanted = trained_size(settings) if tokenizer is None else None
    if tokenizer is None:
        tokenizer = tokenizers.train(
            _checked(train.texts.batches(train_kept), check), wanted or 0, settings.task, max_positions
        )
        check()

    # Tokenise, and pack or pad.
    repeats = Repeats(_checked(held_out.texts.batches(held_out_kept), check))
    train_texts = repeats.watch(train.texts.batches(train_kept))
    held_texts = held_out.texts.batches(held_out_kept)
    classes: Classes | None = None
    train_cut = held_cut = None
    if chosen.block_size is not None:
        size = chosen.block_size
        train_lengths, train_blocks = _pack(folder / TRAIN, train_texts, tokenizer, size, check)
        held_lengths, held_blocks = _pack(folder / HELD_OUT, held_texts, tokenizer, size, check)
        _refuse_short(size, train_blocks, held_blocks, train_lengths, held_lengths)
        train_tokens, held_tokens = train_blocks * size, held_blocks * size
    else:
        train_values = [train.labels[row] for row in train_kept.tolist()]
        held_values = [held_out.labels[row] for row in held_out_kept.tolist()]
        classes = number_labels(
            train_values, held_values, train.label_names, chosen.label_field or "", problems, model_labels
        )
        if problems.found:
            raise InvalidError(problems.all(), Reason.DATASET_INVALID)
        limit = max_positions
        train_lengths, kept = _label(folder / TRAIN, train_texts, classes.train, tokenizer, limit, check)
        held_lengths, held_kept = _label(folder / HELD_OUT, held_texts, classes.held_out, tokenizer, limit, check)
        train_tokens, held_tokens = int(kept.sum()), int(held_kept.sum())
        train_cut, held_cut = int((train_lengths > kept).sum()), int((held_lengths > held_kept).sum())

    # Store the figures.
    packed = chosen.block_size is not None
    figures = DatasetFigures(
        name=source.title,
        train_rows=len(train_kept),
        eval_rows=len(held_out_kept),
        dropped_rows=dropped,
        train_blocks=train_blocks if packed else None,
        eval_blocks=held_blocks if packed else None,
        train_tokens=train_tokens,
        eval_tokens=held_tokens,
        dropped_tokens=int(train_lengths.sum() + held_lengths.sum()) - train_tokens - held_tokens if packed else None,
        lengths=_lengths(train_lengths),
        train_cut_rows=train_cut,
        eval_cut_rows=held_cut,
        longest_input=None if packed else max_positions,
        eval_rows_in_train=repeats.count,
        look_alike=train.look_alike or held_out.look_alike,
        vocabulary=None if wanted is None else len(tokenizer),
        wanted_vocabulary=wanted,
        labels=None if classes is None else classes.names,
        fingerprint=fingerprint,
    )
    summary = {"noun": source.noun, "figures": figures.model_dump(mode="json")}
    tokenizers.fast_core(tokenizer).no_truncation()  # type: ignore[union-attr]
    tokenizer.save_pretrained(str(folder / TOKENIZER))
    (folder / PREPARED).write_text(json.dumps(summary, indent=1))


def _checked(batches: Iterator[list[str]], check: Check) -> Iterator[list[str]]:
    for batch in batches:
        check()
        yield batch


def _load(
    settings: Settings, source: DataSource, scratch: Path, problems: Problems, check: Check
) -> tuple[tuple[Corpus, Indices], tuple[Corpus, Indices]] | None:
    """Both sides of the data: their texts, and the rows to use; None if a split cannot be made."""
    chosen = settings.dataset
    read: dict[str, Corpus] = {}

    def corpus(split: str) -> Corpus:
        if split not in read:
            rows = source.rows(split, chosen.text_field, chosen.label_field, problems)
            read[split] = collect(
                rows, scratch / f"split-{len(read)}", chosen.text_field, chosen.label_field, problems, check
            )
        return read[split]

    def side(split: str, field: str) -> tuple[Corpus, Indices] | None:
        if source.sliced:
            taken = corpus(split)
            return taken, np.arange(len(taken.texts), dtype=np.int64)
        part = parse(split)
        if part is None:
            problems.add(f"spec.dataset.{field}: {split!r} is not a split; write train, train[:5000] or train[80%:]")
            return None
        if part.name != "train":
            problems.add(
                f"spec.dataset.{field}: {source.title} has one split, train, not {part.name!r}; "
                "cut it with slices such as train[:80%] and train[80%:]"
            )
            return None
        taken = corpus(part.name)
        return taken, part.indices(len(taken.texts))

    train = side(chosen.split, "split")
    if chosen.eval_split is not None:
        held_out = side(chosen.eval_split, "evalSplit")
        if train is None or held_out is None:
            return None
        if shared := _shared_rows(train, held_out):
            problems.add(
                f"spec.dataset.evalSplit: {chosen.eval_split!r} has {shared:,} of the rows that {chosen.split!r} "
                "trains on; separate them, as with split train[:90%] and evalSplit train[90%:], or set testPercent"
            )
        return train, held_out
    if train is None:
        return None
    first, second = hold_out(len(train[1]), chosen.test_percent or 0, settings.training.seed)
    return (train[0], train[1][first]), (train[0], train[1][second])


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


def _refuse_empty(
    settings: Settings, train: Indices, held_out: Indices, train_kept: Indices, held_out_kept: Indices
) -> None:
    chosen = settings.dataset
    held_field = "evalSplit" if chosen.eval_split else "testPercent"
    what = f"{chosen.text_field!r}" + (f" and {chosen.label_field!r}" if chosen.label_field else "")
    problems = []
    for field, side, rows, kept in (
        ("split", "to train on", train, train_kept),
        (held_field, "to evaluate on", held_out, held_out_kept),
    ):
        if len(rows) == 0:
            problems.append(f"spec.dataset.{field}: there are no rows {side}")
        elif len(kept) == 0:
            problems.append(f"spec.dataset.{field}: none of the {len(rows):,} rows {side} has a value in {what}")
    if problems:
        raise InvalidError(problems, Reason.DATASET_INVALID)


def _refuse_short(size: int, train_blocks: int, held_blocks: int, train: Lengths, held_out: Lengths) -> None:
    problems = [
        f"spec.dataset.blockSize: the {side} texts have {int(lengths.sum()):,} tokens, fewer than one block of {size}; "
        "use more data or a smaller block"
        for side, blocks, lengths in (("training", train_blocks, train), ("held-out", held_blocks, held_out))
        if blocks == 0
    ]
    if problems:
        raise InvalidError(problems, Reason.DATASET_INVALID)


def _pack(path: Path, texts: Iterator[list[str]], tokenizer: Any, size: int, check: Check) -> tuple[Lengths, int]:
    with BlockWriter(path, size, tokenizers.id_count(tokenizer)) as writer:
        lengths = pack(tokenizer, texts, writer, check)
    return lengths, writer.blocks


def _label(
    path: Path, texts: Iterator[list[str]], numbers: list[int], tokenizer: Any, limit: int | None, check: Check
) -> tuple[Lengths, Lengths]:
    """Write rows with their labels; returns the lengths of their texts, before and after truncation."""
    whole, kept = [], []
    waiting = iter(numbers)
    with RowWriter(path, tokenizers.id_count(tokenizer)) as writer:
        for batch in encoded(tokenizer, texts, check, limit):
            for row in split_ids(batch.ids, batch.lengths):
                writer.add(row, next(waiting))
            whole.append(batch.whole)
            kept.append(batch.lengths)
    return np.concatenate(whole), np.concatenate(kept)


def _lengths(tokens: Lengths) -> TextLengths:
    return TextLengths(
        minimum=int(tokens.min()),
        median=float(np.median(tokens)),
        mean=float(tokens.mean()),
        p95=float(np.percentile(tokens, 95)),
        maximum=int(tokens.max()),
    )


def trained_size(settings: Settings) -> int:
    """Vocabulary of the tokenizer to train."""
    wanted = settings.model.tokenizer.train_vocab_size if settings.model.tokenizer else None
    if wanted is None:
        raise InvalidError(["spec.model.tokenizer: neither name nor trainVocabSize is set; set one of them"])
    return wanted
