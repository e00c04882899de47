"""Which tokens of a conversation are trained on; the result is checked by decoding it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmft_api.spec import TrainOn
from lmft_job.data.chat.messages.conversations import ASSISTANT, Message
from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template.turns import Span, WrittenConversation
from lmft_job.data.rows import Ids
from lmft_job.data.tokens.core import encode_batch

Trained = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MarkedRow:
    """A conversation in tokens.

    Attributes:
        ids: 1-D.
        trained: which of them carry loss, of the same length.
        ends: number of tokens up to the end of each turn of the assistant.
    """

    ids: Ids
    trained: Trained
    ends: tuple[int, ...]


def chosen(messages: Sequence[Message], answers: Sequence[Span], train_on: TrainOn) -> list[Span]:
    """The turns to train on: those of the manifest's choice, unless a message says otherwise for itself."""
    given = [message.get("train") for message in messages if message["role"] == ASSISTANT]
    last = len(answers) - 1
    default = [train_on != TrainOn.LAST_ANSWER or number == last for number in range(len(answers))]
    return [
        span for span, flag, usual in zip(answers, given, default, strict=True) if (usual if flag is None else flag)
    ]


def mark(
    tokenizer: Any,
    written: Sequence[WrittenConversation],
    conversations: Sequence[Sequence[Message]],
    train_on: TrainOn,
) -> list[MarkedRow | BadRowError]:
    """Conversations as tokens with their marks, or what is wrong with one.

    A template writes its own first token, so the tokenizer adds none. A token that reaches over the beginning or the
    end of an answer is split there, as it is when a model is asked.
    """
    core = tokenizer.backend_tokenizer
    core.no_padding()
    core.no_truncation()
    encoded = encode_batch(core, [one.text for one in written], special=False, offsets=True)
    rows: list[MarkedRow | BadRowError] = []
    for encoding, one, messages in zip(encoded, written, conversations, strict=True):
        ids, offsets = np.array(encoding.ids, np.uint32), np.array(encoding.offsets, np.int64).reshape(-1, 2)
        places = _places(core, ids, offsets, one)
        if places is None:
            ids, places = _in_pieces(core, one)
            if places is None or core.decode(ids.tolist(), skip_special_tokens=False) != core.decode(
                encoding.ids, skip_special_tokens=False
            ):
                rows.append(
                    BadRowError(
                        "answers are not whole tokens",
                        "the tokenizer joins the end of a turn's header and its text into one token; end the header "
                        "with a special token or a line end in spec.dataset.chatTemplate.text",
                    )
                )
                continue
        spans = dict(zip(one.answers, places, strict=True))
        trained = np.full(len(ids), train_on == TrainOn.EVERYTHING)
        wanted = chosen(messages, one.answers, train_on)
        for span, (start, end) in spans.items():
            trained[start:end] = span in wanted
        if len(trained):
            trained[0] = False  # nothing precedes it that could predict it
        rows.append(MarkedRow(ids, trained, tuple(end for _, end in places)))
    return rows


def _places(core: Any, ids: Ids, offsets: npt.NDArray[np.int64], one: WrittenConversation) -> list[Span] | None:
    """First token and end of each answer; None if its tokens do not read as what the template writes there."""
    found = []
    starts, ends = offsets[:, 0], offsets[:, 1]
    for start, end in one.answers:
        first = int(np.searchsorted(starts, start))
        last = int(np.searchsorted(starts, end))
        reaches_over = (first and ends[first - 1] > start) or (last > first and ends[last - 1] > end)
        if reaches_over or not _reads(core, ids[first:last].tolist(), one.text[start:end]):
            return None
        found.append((first, last))
    return found


def _in_pieces(core: Any, one: WrittenConversation) -> tuple[Ids, list[Span] | None]:
    """The text cut at the answers, each piece as tokens by itself."""
    cuts = [0, *(place for span in one.answers for place in span), len(one.text)]
    pieces = [one.text[start:end] for start, end in itertools.pairwise(cuts)]
    encoded = encode_batch(core, pieces, special=False, offsets=True)
    bounds = np.cumsum([0, *(len(encoding.ids) for encoding in encoded)])
    ids = np.array([token for encoding in encoded for token in encoding.ids], np.uint32)
    places = [(int(bounds[number]), int(bounds[number + 1])) for number in range(1, len(pieces), 2)]
    exact = all(
        _reads(core, ids[first:last].tolist(), one.text[start:end])
        for (first, last), (start, end) in zip(places, one.answers, strict=True)
    )
    return ids, places if exact else None


def _reads(core: Any, ids: list[int], text: str) -> bool:
    """Whether tokens decode to a text, as far as the tokenizer keeps texts."""
    decoded = core.decode(ids, skip_special_tokens=False)
    if decoded == text:
        return True
    normalizer = core.normalizer
    if normalizer is None:
        return decoded.lstrip(" ") == text.lstrip(" ") and _leads_with_space(core)
    same = [normalizer.normalize_str(one).replace("\u2581", " ").strip(" ") for one in (decoded, text)]
    return bool(same[0] == same[1])


def _leads_with_space(core: Any) -> bool:
    """Whether the tokenizer decodes a word's leading space away at the beginning, as SentencePiece's do."""
    return bool(core.decode(core.encode(" a", add_special_tokens=False).ids).startswith("a"))
