"""The way in: from settings to rows that a Trainer can take, prepared once and found again by their fingerprint."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lmft_api.reasons import Reason
from lmft_api.settings import Settings
from lmft_api.spec import Task

from lmft_job.data import tokenizers
from lmft_job.data.corpus import Corpus, collect, number_labels
from lmft_job.data.files import Problems
from lmft_job.data.masking import MaskedBlocks, Masker
from lmft_job.data.packing import Check, encoded, pack, split_ids
from lmft_job.data.rows import BlockRows, BlockWriter, Item, LabelledRows, PadRows, Rows, RowWriter, stack_blocks
from lmft_job.data.sources import Source, open_source
from lmft_job.data.splits import Indices, hold_out, parse
from lmft_job.errors import InvalidError
from lmft_job.report.model import DatasetFigures, TextLengths
from lmft_job.storage import MANIFEST, DamagedFolderError, Store, disk_error, fetch_verified, join_key, publish_folder

log = logging.getLogger(__name__)

DATASETS = "datasets"
"""Folder of prepared data sets below ``<output.uri>/<namespace>``."""
_SUMMARY = "prepared.json"
_TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Prepared:
    """Data ready for a Trainer.

    Attributes:
        train: rows to train on; give the Trainer ``EpochSampler(len(train), seed)`` as its training sampler, so that
            an index carries its epoch, and leave ``remove_unused_columns`` off.
        held_out: rows to evaluate on, the same at every reading.
        collator: of both.
        tokenizer: the one given, or the one trained on the training texts.
        figures: the data in numbers.
        noun: what a row is called, in the plural.
        reused: whether it was found prepared.
        folder: where it lies on this machine.
    """

    train: Rows
    held_out: Rows
    collator: Callable[[list[Item]], dict[str, Any]]
    tokenizer: Any
    figures: DatasetFigures
    noun: str
    reused: bool
    folder: Path

    @property
    def fingerprint(self) -> str:
        """Names the prepared data here and in storage."""
        return self.folder.name

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their numbers; empty unless SequenceClassification."""
        return self.figures.labels or []


def prepare(
    settings: Settings,
    tokenizer: Any | None,
    *,
    store: Store | None,
    cache: Path,
    max_positions: int | None = None,
    hub_token: Path | None = None,
    credentials: Path | None = None,
    check: Check = lambda: None,
    say: Callable[[str], None] = log.info,
) -> Prepared:
    """Find the prepared data set, here or in storage, or make it and leave it in both.

    Args:
        settings: of the run.
        tokenizer: a fast tokenizer; None trains one of ``settings.model.tokenizer.train_vocab_size`` tokens.
        store: rooted at ``<output.uri>/<namespace>``; None keeps the data on this machine.
        cache: folder of this machine for prepared data and scratch files.
        max_positions: the model's longest input; None when it has no limit.
        hub_token: file that holds a hub token.
        credentials: folder of AWS_* files for s3:// data.
        check: called often; raises when the run is to stop.
        say: hears what a person may want to know.

    Raises:
        InvalidError: spec or data cannot work; every problem found is listed.
        RefusedError: data set not found or not allowed.
        UnavailableError: hub or storage out of reach.
    """
    spec_problems = _spec_problems(settings, tokenizer, max_positions)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="preparing-", dir=cache) as scratch_name:
            scratch = Path(scratch_name)
            try:
                source = open_source(
                    settings.dataset.source, scratch, hub_token=hub_token, credentials=credentials, check=check
                )
            except InvalidError as error:
                raise InvalidError([*spec_problems, *error.problems], error.reason) from error
            fingerprint = fingerprint_of(settings, source.identity, tokenizer, max_positions)
            if not spec_problems:
                found = reopen(fingerprint, settings, tokenizer, store=store, cache=cache, check=check, say=say)
                if found is not None:
                    return found
            folder = scratch / "done"
            folder.mkdir()
            _make(folder, scratch, settings, source, tokenizer, max_positions, fingerprint, spec_problems, check)
            target = _folder(cache, fingerprint)
            _move(folder, target)
        if store is not None:
            publish_folder(store, join_key(DATASETS, fingerprint), target, check=check)
        return _open(target, settings, tokenizer, reused=False)
    except OSError as error:
        raise disk_error(error, cache) from error


def reopen(
    fingerprint: str,
    settings: Settings,
    tokenizer: Any | None,
    *,
    store: Store | None,
    cache: Path,
    check: Check = lambda: None,
    say: Callable[[str], None] = log.info,
) -> Prepared | None:
    """A prepared data set by its fingerprint, without a look at its source; None when there is none."""
    target = _folder(cache, fingerprint)
    if (target / _SUMMARY).is_file():
        try:
            return _open(target, settings, tokenizer, reused=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            say(f"prepared data {fingerprint[:12]} in {cache} is damaged ({error}); it is made again")
            shutil.rmtree(target, ignore_errors=True)
    if store is None:
        return None
    prefix = join_key(DATASETS, fingerprint)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
        try:
            if fetch_verified(store, prefix, Path(scratch) / "done", check) is None:
                return None
        except DamagedFolderError as error:
            say(f"prepared data {store.url(prefix)} is damaged: {error}; it is made again")
            store.delete([join_key(prefix, MANIFEST)])
            return None
        _move(Path(scratch) / "done", target)
    return _open(target, settings, tokenizer, reused=True)


def fingerprint_of(settings: Settings, data: str, tokenizer: Any | None, max_positions: int | None) -> str:
    """Names what the prepared data depends on: the data, split, fields, tokenizer, block size and this code."""
    chosen = settings.dataset
    parts: dict[str, Any] = {
        "code": code_version(),
        "data": data,
        "task": settings.task.value,
        "split": [chosen.split, chosen.eval_split, chosen.test_percent],
        "seed": settings.training.seed if chosen.test_percent else None,
        "fields": [chosen.text_field, chosen.label_field],
        "block_size": chosen.block_size,
        "tokenizer": tokenizers.identity(tokenizer) if tokenizer is not None else _trained_size(settings),
        "max_length": _max_length(tokenizer, max_positions) if chosen.block_size is None else None,
        "max_positions": max_positions if tokenizer is None else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def code_version() -> str:
    """SHA-256 of this package's code: data prepared by other code is not reused, whoever forgot to count it up."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _spec_problems(settings: Settings, tokenizer: Any | None, max_positions: int | None) -> list[str]:
    """What can be told before the data is seen."""
    problems = []
    size = settings.dataset.block_size
    if size is not None and max_positions is not None and size > max_positions:
        problems.append(
            f"spec.dataset.blockSize: {size} is more than the {max_positions} positions of the model; "
            f"set at most {max_positions}"
        )
    if tokenizer is None:
        return problems
    if tokenizers.fast_core(tokenizer) is None:
        problems.append(
            f"spec.model.tokenizer: {type(tokenizer).__name__} has no fast version (tokenizer.json); "
            "name another tokenizer or convert it"
        )
    if settings.task == Task.MASKED_LM and tokenizer.mask_token_id is None:
        problems.append("spec.model.tokenizer: it has no mask token, which MaskedLM needs; use a BERT-like model")
    if settings.task == Task.SEQUENCE_CLASSIFICATION and tokenizer.pad_token_id is None:
        problems.append("spec.model.tokenizer: it has no padding token, which SequenceClassification needs")
    return problems


def _make(
    folder: Path,
    scratch: Path,
    settings: Settings,
    source: Source,
    tokenizer: Any | None,
    max_positions: int | None,
    fingerprint: str,
    spec_problems: list[str],
    check: Check,
) -> None:
    """load → split → flatten/join → (train a tokenizer) → tokenise → pack, into a folder."""
    chosen = settings.dataset
    problems = Problems()

    # Load, flatten and join.
    sides = _load(settings, source, scratch, problems, check)
    if sides is None or problems.found or spec_problems:
        raise InvalidError(
            spec_problems + problems.all(), Reason.DATASET_INVALID if problems.found else Reason.INVALID_SPEC
        )
    (train, train_rows), (held_out, held_out_rows) = sides

    # Drop what has no text.
    train_kept, held_out_kept = train.usable(train_rows), held_out.usable(held_out_rows)
    dropped = len(train_rows) + len(held_out_rows) - len(train_kept) - len(held_out_kept)
    _refuse_empty(settings, train_rows, held_out_rows, train_kept, held_out_kept)

    # Train a tokenizer, if there is none.
    if tokenizer is None:
        tokenizer = tokenizers.train(
            train.texts.batches(train_kept), _trained_size(settings), settings.task, max_positions
        )
        check()

    # Tokenise, and pack or pad.
    labels: list[str] | None = None
    if chosen.block_size is not None:
        train_lengths, train_blocks = _pack(folder / "train.arrow", train, train_kept, tokenizer, chosen.block_size, check)
        held_lengths, held_blocks = _pack(
            folder / "eval.arrow", held_out, held_out_kept, tokenizer, chosen.block_size, check
        )
        _refuse_short(chosen.block_size, train_blocks, held_blocks, train_lengths, held_lengths)
        train_tokens, held_tokens = train_blocks * chosen.block_size, held_blocks * chosen.block_size
    else:
        train_values = [train.labels[row] for row in train_kept.tolist()]
        held_values = [held_out.labels[row] for row in held_out_kept.tolist()]
        labels, train_numbers, held_numbers = number_labels(
            train_values, held_values, train.label_names, chosen.label_field or "", problems
        )
        if problems.found:
            raise InvalidError(problems.all(), Reason.DATASET_INVALID)
        limit = _max_length(tokenizer, max_positions)
        train_lengths = _label(folder / "train.arrow", train, train_kept, train_numbers, tokenizer, limit, check)
        held_lengths = _label(folder / "eval.arrow", held_out, held_out_kept, held_numbers, tokenizer, limit, check)
        train_tokens, held_tokens = int(train_lengths.sum()), int(held_lengths.sum())

    # Note the figures.
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
        labels=labels,
        fingerprint=fingerprint,
    )
    summary = {"noun": source.noun, "figures": figures.model_dump(mode="json")}
    tokenizers.fast_core(tokenizer).no_truncation()  # type: ignore[union-attr]
    tokenizer.save_pretrained(str(folder / _TOKENIZER))
    (folder / _SUMMARY).write_text(json.dumps(summary, indent=1))


def _load(
    settings: Settings, source: Source, scratch: Path, problems: Problems, check: Check
) -> tuple[tuple[Corpus, Indices], tuple[Corpus, Indices]] | None:
    """Both sides of the data: their texts, and the rows to use of them; None when a split cannot be."""
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
            problems.add(f"spec.dataset.{field}: {split!r} is no split; write train, train[:5000] or train[80%:]")
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
        return (train, held_out) if train is not None and held_out is not None else None
    if train is None:
        corpus("train") if not source.sliced else None
        return None
    assert chosen.test_percent is not None, "settings give evalSplit or testPercent"
    first, second = hold_out(len(train[1]), chosen.test_percent, settings.training.seed)
    return (train[0], train[1][first]), (train[0], train[1][second])


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


def _refuse_short(
    size: int, train_blocks: int, held_blocks: int, train: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]
) -> None:
    problems = [
        f"spec.dataset.blockSize: the {side} texts have {int(lengths.sum()):,} tokens, fewer than one block of {size}; "
        "take more data or a smaller block"
        for side, blocks, lengths in (("training", train_blocks, train), ("held-out", held_blocks, held_out))
        if blocks == 0
    ]
    if problems:
        raise InvalidError(problems, Reason.DATASET_INVALID)


def _pack(
    path: Path, corpus: Corpus, rows: Indices, tokenizer: Any, size: int, check: Check
) -> tuple[npt.NDArray[np.int64], int]:
    with BlockWriter(path, size, len(tokenizer)) as writer:
        lengths = pack(tokenizer, corpus.texts.batches(rows), writer, check)
    return lengths, writer.blocks


def _label(
    path: Path, corpus: Corpus, rows: Indices, numbers: list[int], tokenizer: Any, limit: int | None, check: Check
) -> npt.NDArray[np.int64]:
    lengths = []
    waiting = iter(numbers)
    with RowWriter(path, len(tokenizer)) as writer:
        for ids, counts in encoded(tokenizer, corpus.texts.batches(rows), check, limit):
            for row in split_ids(ids, counts):
                writer.add(row, next(waiting))
            lengths.append(counts)
    return np.concatenate(lengths)


def _lengths(tokens: npt.NDArray[np.int64]) -> TextLengths:
    return TextLengths(
        minimum=int(tokens.min()),
        median=float(np.median(tokens)),
        mean=float(tokens.mean()),
        p95=float(np.percentile(tokens, 95)),
        maximum=int(tokens.max()),
    )


def _trained_size(settings: Settings) -> int:
    wanted = settings.model.tokenizer.train_vocab_size if settings.model.tokenizer else None
    if wanted is None:
        raise InvalidError(["spec.model.tokenizer: no tokenizer is named and none is to be trained; set one of both"])
    return wanted


def _max_length(tokenizer: Any | None, max_positions: int | None) -> int | None:
    """Where texts are truncated: the smaller of the tokenizer's and the model's limit."""
    own = getattr(tokenizer, "model_max_length", None)
    limits = [limit for limit in (own, max_positions) if limit is not None and limit < 1 << 30]
    return int(min(limits)) if limits else None


def _folder(cache: Path, fingerprint: str) -> Path:
    return cache / "prepared" / fingerprint


def _move(folder: Path, target: Path) -> None:
    """Put a finished folder in its place at once; one that is there already is as good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError, OSError):
        os.rename(folder, target)
    if not (target / _SUMMARY).is_file():
        raise FileNotFoundError(f"{target / _SUMMARY} could not be put in place")


def _open(folder: Path, settings: Settings, tokenizer: Any | None, *, reused: bool) -> Prepared:
    summary = json.loads((folder / _SUMMARY).read_text())
    if tokenizer is None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder / _TOKENIZER), local_files_only=True)
    train, held_out, collator = _views(folder, settings, tokenizer)
    figures = DatasetFigures.model_validate(summary["figures"])
    return Prepared(train, held_out, collator, tokenizer, figures, summary["noun"], reused, folder)


def _views(folder: Path, settings: Settings, tokenizer: Any) -> tuple[Rows, Rows, Callable[[list[Item]], dict[str, Any]]]:
    train, held_out = folder / "train.arrow", folder / "eval.arrow"
    if settings.task == Task.CAUSAL_LM:
        return BlockRows(train), BlockRows(held_out), stack_blocks
    if settings.task == Task.MASKED_LM:
        masker = Masker(
            settings.training.seed,
            settings.dataset.mask_probability or 0.15,
            len(tokenizer),
            tokenizer.mask_token_id,
            tokenizer.all_special_ids,
        )
        return MaskedBlocks(train, masker, fixed=False), MaskedBlocks(held_out, masker, fixed=True), stack_blocks
    pad = PadRows(tokenizer.pad_token_id, left=tokenizer.padding_side == "left")
    return LabelledRows(train), LabelledRows(held_out), pad
