"""The entry: from settings to rows that a Trainer can take, prepared once and found again by their fingerprint."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import lmft_job
from lmft_api.spec.resolved import Settings
from lmft_api.wire.layout import DATASETS, PREPARED
from lmft_api.wire.report import DatasetFigures
from lmft_api.wire.versions import FIRST_FORMAT, NewerFormatError, require_format
from lmft_job.data.build import HELD_OUT, TOKENIZER, TRAIN, Making, make, problems_of_spec, trained_size
from lmft_job.data.chat.asking import settle, today
from lmft_job.data.chat.rows import ConversationRows
from lmft_job.data.chat.template.rendering import ChatTemplate
from lmft_job.data.chat.template.settled import template_of
from lmft_job.data.isolated.blocks import DocumentBlocks
from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.masking import MaskedBlocks, Masker
from lmft_job.data.rows import BlockRows, Item, LabelledRows, PadRows, Rows, stack_blocks
from lmft_job.data.sources.source import open_source
from lmft_job.data.tokens.packing import Check
from lmft_job.errors import InvalidError, JobError, NewerReleaseError, RefusedError, UnavailableError
from lmft_job.models import tokenizers
from lmft_job.process.transfers import Told, silent
from lmft_job.process.watchdog import Pause
from lmft_job.storage import (
    MANIFEST,
    DamagedFolderError,
    Store,
    disk_error,
    fetch_verified,
    join_key,
    publish_folder,
    remove_unnamed,
)

log = logging.getLogger(__name__)

_PACKAGE = Path(lmft_job.__file__).parent
CODE = ("data/**/*.py", "models/config.py", "models/tokenizers.py", "tasks/*.py")
"""Files of this package that affect the prepared rows."""


@dataclass(frozen=True)
class Prepared:
    """Data ready for a Trainer.

    Attributes:
        train: rows to train on; give the Trainer ``EpochSampler(len(train), seed)`` as its training sampler, so that
            an index carries its epoch, and set ``remove_unused_columns`` to False.
        held_out: rows to evaluate on, the same at every reading.
        collator: for both.
        tokenizer: the given one, or the one trained on the training texts.
        figures: figures of the data.
        noun: what a row is called, plural.
        reused: whether it had been prepared before.
        folder: its folder on this machine.
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
        """Identifies the prepared data here and in storage."""
        return self.folder.name

    @property
    def row_tokens(self) -> int:
        """Most tokens of a row, where that is bounded; 0 where it is not."""
        conversations = self.figures.conversations
        if conversations is not None:
            return conversations.max_length
        return self.figures.train_tokens // self.figures.train_blocks if self.figures.train_blocks else 0

    @property
    def shared(self) -> bool:
        """Whether several texts share a row without seeing each other: isolated documents, packed conversations."""
        conversations = self.figures.conversations
        return isinstance(self.collator, PadShared) and (conversations is None or conversations.packs is not None)

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their numbers; empty unless the rows have labels."""
        return self.figures.labels or []


def prepare(
    settings: Settings,
    tokenizer: Any | None,
    *,
    store: Store | None,
    cache: Path,
    max_positions: int | None = None,
    model_labels: Sequence[str] = (),
    packs: bool = True,
    day: str | None = None,
    known_problems: Sequence[str] = (),
    hub_token: Path | None = None,
    credentials: Path | None = None,
    check: Check = lambda: None,
    paused: Pause = nullcontext,
    told: Told = silent,
    say: Callable[[str], None] = log.info,
    admitted: Sequence[str] | None = None,
) -> Prepared:
    """Find the prepared data set, here or in storage, or prepare it and store it in both.

    Args:
        settings: settings of the run.
        tokenizer: a fast one that is ready for the task; None trains one with ``train_vocab_size`` tokens.
        store: rooted at ``<output.uri>/<namespace>``; None keeps the data on this machine.
        cache: folder of this machine for prepared data and scratch files.
        max_positions: tokens that fit into one input (see :func:`lmft_job.models.config.position_limit`); None for no
            limit.
        model_labels: class names of the model, in the order of their numbers; empty for a fresh head.
        packs: whether the model keeps conversations apart that share a row.
        day: the run's first day, an ISO date, for chat templates that write it. Default: today.
        known_problems: problems found already; the data is then only checked, to report its problems too.
        hub_token: file that holds a hub token.
        credentials: folder of AWS_* files for s3:// data.
        check: called often; raises if a stop was requested.
        paused: keeps the watchdog from watching the hub's client, which does not call ``check``.
        told: is told what has arrived of remote data.
        say: called with messages for people.
        admitted: the platform's patterns for addresses of files; None allows all.

    Raises:
        InvalidError: spec or data are invalid; lists every problem found, known ones included.
        RefusedError: data set not found or not allowed.
        UnavailableError: hub or storage unreachable.
    """
    day = day or today()
    spec_problems = [*known_problems, *problems_of_spec(settings, max_positions)]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="preparing-", dir=cache) as scratch_name:
            scratch = Path(scratch_name)
            try:
                source = open_source(
                    settings.dataset.source,
                    scratch,
                    hub_token=hub_token,
                    credentials=credentials,
                    check=check,
                    admitted=admitted,
                    paused=paused,
                    told=told,
                )
            except (InvalidError, RefusedError, UnavailableError) as error:
                if not spec_problems:
                    raise
                raise _with_problems(spec_problems, error) from error
            fingerprint = ""
            if not spec_problems:
                fingerprint = fingerprint_of(
                    settings, source.identity, tokenizer, max_positions, model_labels, packs=packs, day=day
                )
                found = reopen(fingerprint, settings, tokenizer, store=store, cache=cache, check=check, say=say)
                if found is not None:
                    return found
            folder = scratch / "done"
            folder.mkdir()
            making = Making(
                settings=settings,
                source=source,
                tokenizer=tokenizer,
                settle=lambda trained: settle(settings, trained),
                max_positions=max_positions,
                model_labels=model_labels,
                packs=packs,
                day=day,
                check=check,
            )
            make(folder, scratch, making, fingerprint=fingerprint, spec_problems=spec_problems)
            target = _folder(cache, fingerprint)
            _move(folder, target)
        if store is not None:
            publish_folder(store, join_key(DATASETS, fingerprint), target, check=check)
            remove_unnamed(store, join_key(DATASETS, fingerprint))
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
    """A prepared data set by its fingerprint, without reading its source; None if there is none."""
    target = _folder(cache, fingerprint)
    if (target / PREPARED).is_file():
        try:
            return _open(target, settings, tokenizer, reused=True)
        except (OSError, ValueError, pa.ArrowException, NewerReleaseError) as error:
            say(f"prepared data {fingerprint[:12]} in {cache} cannot be used ({error}); it is prepared again")
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
            say(f"prepared data {store.url(prefix)} is damaged: {error}; it is prepared again")
            store.delete([join_key(prefix, MANIFEST)])
            return None
        except NewerReleaseError as error:
            say(f"{error}; it is prepared again here")
            return None
        _move(Path(scratch) / "done", target)
    try:
        return _open(target, settings, tokenizer, reused=True)
    except NewerReleaseError as error:
        # Data of a newer release is kept: the newer release can use it.
        say(f"{error}; it is prepared again here")
        shutil.rmtree(target, ignore_errors=True)
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        say(f"prepared data {store.url(prefix)} cannot be used ({error}); it is prepared again")
        shutil.rmtree(target, ignore_errors=True)
        store.delete([join_key(prefix, MANIFEST)])
        return None


def fingerprint_of(
    settings: Settings,
    data: str,
    tokenizer: Any | None,
    max_positions: int | None,
    model_labels: Sequence[str] = (),
    *,
    packs: bool = True,
    day: str = "",
) -> str:
    """Hash of everything the prepared data depends on: data, split, fields, tokenizer, block size and this code.

    For conversations also of the template, what is trained on, lengths and packs; of the day if the template asks.
    """
    chosen = settings.dataset
    parts: dict[str, Any] = {
        "code": code_version(),
        "data": data,
        "task": settings.task.value,
        "split": [chosen.split, chosen.eval_split, chosen.test_percent],
        "seed": settings.training.seed if chosen.test_percent else None,
        "fields": [chosen.text_field, chosen.label_field],
        "block_size": chosen.block_size,
        "tokenizer": tokenizers.identity(tokenizer) if tokenizer is not None else trained_size(settings),
        "max_length": max_positions if chosen.block_size is None else None,
        "max_positions": max_positions if tokenizer is None else None,
        "model_labels": list(model_labels) if chosen.block_size is None else None,
    }
    if chosen.isolate_documents:
        parts["isolate_documents"] = True
    if chosen.has_conversations:
        given = chosen.chat_template
        text = template_of(tokenizer, day).text if tokenizer is not None else (given and given.text) or ""
        parts["conversations"] = {
            "fields": list(chosen.fields),
            "template": text if tokenizer is not None else given and given.model_dump(mode="json"),
            "day": day if ChatTemplate(text, {}, day).asks_for_the_day else None,
            "tokens": dict(template_of(tokenizer, day).tokens) if tokenizer is not None else None,
            "train_on": chosen.train_on,
            "max_length": chosen.max_length,
            "long_rows": chosen.long_rows,
            "bad_rows": chosen.bad_rows,
            "packing": chosen.packing if packs else None,
        }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def code_version() -> str:
    """SHA-256 of the code that affects prepared rows: data prepared by other code is not reused."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in _PACKAGE.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _with_problems(known: Sequence[str], error: JobError) -> InvalidError:
    """One error for an invalid spec and unavailable data together; the spec must change anyway."""
    if isinstance(error, InvalidError):
        return InvalidError([*known, *error.problems], error.reason)
    return InvalidError([*known, str(error)] if isinstance(error, RefusedError) else known)


def _folder(cache: Path, fingerprint: str) -> Path:
    return cache / "prepared" / fingerprint


def _move(folder: Path, target: Path) -> None:
    """Move a finished folder into place atomically; one that is there already is equally good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(folder, target)
    except OSError:
        # Another process may have put a complete one there.
        if not (target / PREPARED).is_file():
            raise


def _open(folder: Path, settings: Settings, tokenizer: Any | None, *, reused: bool) -> Prepared:
    summary = json.loads((folder / PREPARED).read_text())
    try:
        require_format(summary, FIRST_FORMAT, f"prepared data {folder.name[:12]}")
    except NewerFormatError as error:
        raise NewerReleaseError(str(error)) from error
    if tokenizer is None:
        # Anyone with access to the namespace's storage may have put it there.
        tokenizer = _tokenizer(folder / TOKENIZER)
    train, held_out, collator = _views(folder, settings, tokenizer)
    figures = DatasetFigures.model_validate(summary["figures"])
    return Prepared(train, held_out, collator, tokenizer, figures, summary["noun"], reused, folder)


def _tokenizer(folder: Path) -> Any:
    """Raises ValueError for a tokenizer that cannot be read, or that refers to files elsewhere."""
    from lmft_job.models.sources.parsing import SlowTokenizerError, tokenizer_of
    from lmft_job.process.confined import ConfinedError

    try:
        return tokenizer_of(folder, "prepared data", log.info)
    except (ConfinedError, SlowTokenizerError, InvalidError) as error:
        raise ValueError(f"its tokenizer: {error}") from error


def _views(
    folder: Path, settings: Settings, tokenizer: Any
) -> tuple[Rows, Rows, Callable[[list[Item]], dict[str, Any]]]:
    train, held_out = folder / TRAIN, folder / HELD_OUT
    probability = settings.dataset.mask_probability
    if probability is not None:
        masker = Masker(
            settings.training.seed,
            probability,
            len(tokenizer),
            tokenizer.mask_token_id,
            tokenizer.all_special_ids,
        )
        return MaskedBlocks(train, masker, fixed=False), MaskedBlocks(held_out, masker, fixed=True), stack_blocks
    if settings.dataset.has_conversations:
        return ConversationRows(train), ConversationRows(held_out), PadShared(tokenizer.pad_token_id or 0)
    if settings.dataset.isolate_documents:
        return DocumentBlocks(train), DocumentBlocks(held_out), PadShared(tokenizer.pad_token_id or 0)
    if settings.dataset.block_size is not None:
        return BlockRows(train), BlockRows(held_out), stack_blocks
    pad = PadRows(tokenizer.pad_token_id, left=tokenizer.padding_side == "left")
    return LabelledRows(train), LabelledRows(held_out), pad
