"""Conversations of a side as rows on disk: written with the template, marked, bounded in length, and packed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmft_api.reasons import Reason
from lmft_api.spec import LongRows, Packing
from lmft_api.spec.resolved import DatasetSettings
from lmft_api.wire.report import ConversationFigures, RowExample, RowSegment
from lmft_job.data.chat.masks import MarkedRow, mark
from lmft_job.data.chat.messages.conversations import ASSISTANT, Conversation
from lmft_job.data.chat.messages.wrong import BadRowError, BadRowsFound
from lmft_job.data.chat.packs import best_fit
from lmft_job.data.chat.rows import ConversationRows, PackWriter, repacked
from lmft_job.data.chat.template.confined import write_confined
from lmft_job.data.chat.template.settled import special_tokens, template_of
from lmft_job.data.chat.template.turns import WrittenConversation
from lmft_job.data.problems import Problems
from lmft_job.data.sides import Side
from lmft_job.data.tokens.packing import Check
from lmft_job.data.tokens.writer import Written
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers

LONGEST = 2048
"""Default of ``spec.dataset.maxLength``, for models that take as much."""
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 2000


@dataclass
class SideCounts:
    """What became of the conversations of a side."""

    trained: int = 0
    long: int = 0
    truncated: int = 0
    cut: int = 0
    untrained: int = 0
    packs: int | None = None
    examples: list[RowExample] = field(default_factory=list)


class ConversationTexts:
    """Writes the conversations of a side.

    Args:
        chosen: resolved ``spec.dataset``.
        tokenizer: with the run's template.
        limit: tokens that the model takes; None for no limit.
        packs: whether the model keeps conversations apart that share a row.
        day: the run's first day, an ISO date.
        scratch: folder for temporary files.
        problems: receives what is wrong.
        bad: receives the rows that cannot be written.
        check: called often; raises if a stop was requested.
    """

    def __init__(
        self, chosen: DatasetSettings, tokenizer: Any, *, limit: int | None, packs: bool, day: str, scratch: Path,
        problems: Problems, bad: BadRowsFound, check: Check,
    ) -> None:  # fmt: skip
        self._chosen = chosen
        self._tokenizer = tokenizer
        self._template = template_of(tokenizer, day)
        self._specials = special_tokens(tokenizer)
        self._max = chosen.max_length or min(LONGEST, limit or LONGEST)
        self._packs = packs and chosen.packing == Packing.ROWS
        self._kept_apart = packs
        self._scratch = scratch
        self._problems = problems
        self._bad = bad
        self._check = check
        self._field = next(name for name in ("messagesField", "promptField") if chosen.messages_field or name[0] == "p")

    def write(self, path: Path, side: Side, texts: Iterator[list[str]]) -> Written:
        """Write a side; the held-out rows are not packed."""
        counts = SideCounts()
        packed = self._packs and side.name == "training"
        loose = self._scratch / "unpacked.arrow" if packed else path
        bound = tokenizers.id_count(self._tokenizer)
        lengths: list[int] = []
        tokens = 0
        numbers = iter(side.kept.tolist())
        with PackWriter(loose, bound) as writer:
            for batch in texts:
                self._check()
                places = [side.corpus.places.of(next(numbers)) for _ in batch]
                for row in self._rows([json.loads(text) for text in batch], places, counts, lengths):
                    writer.add([row])
                    tokens += len(row.ids)
                    counts.trained += int(row.trained[1:].sum())
                    if len(counts.examples) < _EXAMPLES:
                        counts.examples.append(RowExample(segments=segments(self._tokenizer, row, _EXAMPLE_CHARACTERS)))
        if packed and writer.packs:
            rows = ConversationRows(loose)
            counts.packs = repacked(rows, best_fit(rows.lengths().tolist(), self._max), path, bound)
        elif packed:
            loose.replace(path)
        return Written(writer.packs, tokens, np.array(lengths or [0], np.int64), more=counts)

    def _rows(
        self, conversations: list[Conversation], places: list[str], counts: SideCounts, lengths: list[int]
    ) -> Iterator[MarkedRow]:
        """Rows of a batch, in order, that are to be trained on."""
        marked = self._marked(conversations)
        lengths += [len(row.ids) for row in marked if isinstance(row, MarkedRow)]
        long = [number for number, row in enumerate(marked)
                if isinstance(row, MarkedRow) and len(row.ids) > self._max]  # fmt: skip
        whole = {number: len(marked[number].ids) for number in long}  # type: ignore[union-attr]
        cut = self._shortened({number: conversations[number] for number in long}, marked, counts)
        for number, (row, place) in enumerate(zip(marked, places, strict=True)):
            if number in whole:
                self._count_long(place, whole[number], counts)
                if number not in cut:
                    continue
                row = cut[number]
            if isinstance(row, BadRowError):
                self._bad.add(self._field, place, row)
            elif not row.trained[1:].any():
                counts.untrained += 1
            else:
                yield row

    def _marked(self, conversations: Sequence[Conversation]) -> list[MarkedRow | BadRowError]:
        outcomes = write_confined(self._template, conversations, self._specials, self._scratch)
        good = [number for number, one in enumerate(outcomes) if isinstance(one, WrittenConversation)]
        messages = [conversations[number]["messages"] for number in good]
        written = [one for one in outcomes if isinstance(one, WrittenConversation)]
        train_on = self._chosen.train_on
        assert train_on is not None  # noqa: S101 - resolved for conversations
        rows = dict(zip(good, mark(self._tokenizer, written, messages, train_on), strict=True))
        return [rows[number] if isinstance(one, WrittenConversation) else one for number, one in enumerate(outcomes)]

    def _count_long(self, place: str, tokens: int, counts: SideCounts) -> None:
        if self._chosen.long_rows == LongRows.DROP:
            counts.long += 1
        elif self._chosen.long_rows == LongRows.TRUNCATE:
            counts.truncated += 1
        else:
            self._bad.problem(
                "maxLength",
                place,
                f"has {tokens:,} tokens, more than {self._max:,}; shorten it, set a larger maxLength, or set longRows "
                "to Drop or Truncate",
            )

    def _shortened(
        self, waiting: dict[int, Conversation], marked: list[MarkedRow | BadRowError], counts: SideCounts
    ) -> dict[int, MarkedRow | BadRowError]:
        """Long conversations without their last turns; the only answer that is left is cut within."""
        done: dict[int, MarkedRow | BadRowError] = {}
        if self._chosen.long_rows != LongRows.TRUNCATE:
            return done
        rows = {number: marked[number] for number in waiting}
        while waiting:
            self._check()
            for number, row in list(rows.items()):
                if isinstance(row, MarkedRow) and len(row.ids) > self._max and len(row.ends) > 1:
                    waiting[number] = _fewer_turns(waiting[number], row, self._max)
                    continue
                if isinstance(row, MarkedRow) and len(row.ids) > self._max:
                    counts.cut += 1
                    row = _cut(row, self._max)
                done[number] = row
                del waiting[number], rows[number]
            rows = dict(zip(waiting, self._marked(list(waiting.values())), strict=True))
        return done

    def refuse(self, train: Written, held_out: Written) -> None:
        """Raises InvalidError for bad rows, and for a side that has nothing to train on."""
        self._bad.report()
        held_field = "evalSplit" if self._chosen.eval_split else "testPercent"
        for side, name in ((train, "split"), (held_out, held_field)):
            if side.rows == 0 and not self._problems.found:
                self._problems.add(f"spec.dataset.{name}: {self._nothing_left(side.more)}")
        if self._problems.found:
            raise InvalidError(self._problems.all(), Reason.DATASET_INVALID)

    def _nothing_left(self, counts: SideCounts) -> str:
        parts = [
            f"{number:,} {what}"
            for number, what in (
                (counts.long, f"have more than {self._max:,} tokens (spec.dataset.maxLength)"),
                (counts.untrained, "have no token to train on"),
                (sum(self._bad.causes.values()), f"are wrong ({', '.join(self._bad.causes)})"),
            )
            if number
        ]
        return f"no conversation is left on this side: {'; '.join(parts)}"

    def figures(self, train: Written, held_out: Written) -> dict[str, Any]:
        """What became of the conversations."""
        one, other = train.more, held_out.more
        return {
            "conversations": ConversationFigures(
                max_length=self._max,
                packed=one.packs is not None,
                packs=one.packs,
                kept_apart=self._kept_apart,
                train_trained_tokens=one.trained,
                eval_trained_tokens=other.trained,
                bad_rows=dict(sorted(self._bad.causes.items())),
                long_rows_dropped=one.long + other.long,
                truncated_rows=one.truncated + other.truncated,
                cut_answers=one.cut + other.cut,
                untrained_rows=one.untrained + other.untrained,
                examples=one.examples,
            )
        }


def _fewer_turns(conversation: Conversation, row: MarkedRow, most: int) -> Conversation:
    """Up to the last answer that fits, at least the first; always fewer answers than before."""
    places = [number for number, message in enumerate(conversation["messages"]) if message["role"] == ASSISTANT]
    fitting = sum(end <= most for end in row.ends)
    keep = max(1, min(fitting, len(places) - 1))
    trailing = places[-1] + 1 < len(conversation["messages"])
    if trailing and fitting == len(places):
        keep = len(places)  # what is too long comes after the last answer
    return {**conversation, "messages": conversation["messages"][: places[keep - 1] + 1]}


def _cut(row: MarkedRow, most: int) -> MarkedRow:
    return replace(row, ids=row.ids[:most], trained=row.trained[:most])


def segments(tokenizer: Any, row: MarkedRow, most: int) -> list[RowSegment]:
    """A row as the model sees it, in runs of tokens that are trained on or not; cut to some characters."""
    core = tokenizer.backend_tokenizer
    edges = np.flatnonzero(np.diff(row.trained.astype(np.int8))) + 1
    found: list[RowSegment] = []
    length = 0
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(row.ids)], strict=True):
        text = core.decode(row.ids[start:end].tolist(), skip_special_tokens=False)
        kept = text if length + len(text) <= most else text[: max(0, most - length)] + "…"
        found.append(RowSegment(text=kept, trained=bool(row.trained[start])))
        length += len(text)
        if length > most:
            break
    return found
