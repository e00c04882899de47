"""Answers side by side, with the words that differ marked."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

SHOWN_LENGTH = 900
"""Characters of an answer after which the rest is collapsed."""
MOST_WORDS = 250
"""Words of each answer that are compared: the time to compare grows with their third power at worst."""
LEAST_SHARED = 0.2
"""Share of words in common below which nothing is marked, since everything would be."""
FEW_WORDS = 12
"""Answers of no more words are marked however little they share."""

# Chinese and Japanese have no spaces between words, so each of their characters counts as one.
_IDEOGRAMS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PUNCTUATION = r""".,;:!?()\[\]"“”„«»。、！？"""
_WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{_IDEOGRAMS}]|[{_PUNCTUATION}]|[^\s{_IDEOGRAMS}{_PUNCTUATION}]+")
_LETTERS = re.compile(r"\w")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer, and whether the other answer has other words there."""

    text: str
    changed: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer, split where the page collapses it; no pieces for an empty one."""

    shown: Sequence[Piece]
    rest: Sequence[Piece] = ()

    @property
    def rest_length(self) -> int:
        """Characters that are collapsed."""
        return sum(len(piece.text) for piece in self.rest)


@dataclass(frozen=True)
class Sample:
    """A prompt with its answers, of which None is not known, and a remark on how they differ."""

    prompt: str
    before: Answer | None
    after: Answer | None
    remark: str = ""


def sample_of(prompt: str, before: str | None, after: str | None) -> Sample:
    """A prompt answered before and after training."""
    first, last = tidy(before or ""), tidy(after or "")
    if before is None or after is None:
        marked, other, remark = [Piece(first)], [Piece(last)], ""
    else:
        marked, other, remark = compared(first, last)
    return Sample(
        prompt,
        None if before is None else _collapsed(marked),
        None if after is None else _collapsed(other),
        remark,
    )


def any_marked(samples: Iterable[Sample]) -> bool:
    """Whether there is a word that is marked, which then has to be explained."""
    answers = [answer for sample in samples for answer in (sample.before, sample.after) if answer is not None]
    return any(piece.changed for answer in answers for piece in (*answer.shown, *answer.rest))


def answers_beside(answers: Sequence[str]) -> list[Answer]:
    """Answers of several runs to a prompt; words that the first does not have there are marked in the others."""
    first, *others = map(tidy, answers)
    return [_collapsed([Piece(first)]), *(_collapsed(compared(first, other)[1]) for other in others)]


def tidy(text: str) -> str:
    """A continuation begins with the space before its first word; more spaces are indentation and stay."""
    text = text.strip("\r\n").rstrip()
    return text[1:] if text.startswith(" ") and not text[1:2].isspace() else text


def compared(before: str, after: str) -> tuple[list[Piece], list[Piece], str]:
    """Both texts in pieces, joined the same as before, with the words marked that differ, and a remark or "".

    Spaces are not compared. The time is bounded however long the texts are: only their first words are compared.
    """
    if before == after:
        return [Piece(before)], [Piece(after)], "Both answers are the same." if before else ""
    if not before or not after:
        return [Piece(before)], [Piece(after)], ""
    places, others = _words(before), _words(after)
    words, other_words = [[text[start:end] for start, end in found]
                          for text, found in ((before, places), (after, others))]  # fmt: skip
    blocks = SequenceMatcher(None, words, other_words, autojunk=False).get_matching_blocks()
    kept = {block.a + number for block in blocks for number in range(block.size)}
    other_kept = {block.b + number for block in blocks for number in range(block.size)}
    shared = sum(bool(_LETTERS.search(words[number])) for number in kept)
    longer = max(sum(map(bool, map(_LETTERS.search, side))) for side in (words, other_words))
    if longer > FEW_WORDS and shared < LEAST_SHARED * longer:
        return [Piece(before)], [Piece(after)], "Hardly a word is the same in both answers."
    marked = [_marked(before, places, kept), _marked(after, others, other_kept)]
    cut = MOST_WORDS in (len(places), len(others))
    return marked[0], marked[1], f"Changes are marked in the first {MOST_WORDS} words." if cut else ""


def _words(text: str) -> list[tuple[int, int]]:
    """Where the first words begin and end."""
    found = _WORD.finditer(text)
    return [match.span() for match, _ in zip(found, range(MOST_WORDS), strict=False)]


def _marked(text: str, words: Sequence[tuple[int, int]], kept: set[int]) -> list[Piece]:
    """The text in pieces; what stands between two marked words is marked with them."""
    pieces, done, number = [], 0, 0
    while number < len(words):
        if number in kept:
            number += 1
            continue
        start = words[number][0]
        while number + 1 < len(words) and number + 1 not in kept:
            number += 1
        end = words[number][1]
        pieces += [Piece(text[done:start]), Piece(text[start:end], changed=True)]
        done, number = end, number + 1
    return [piece for piece in (*pieces, Piece(text[done:])) if piece.text]


def _collapsed(pieces: Sequence[Piece]) -> Answer:
    """Cut where it is long, between words if there are any near."""
    text = "".join(piece.text for piece in pieces)
    if len(text) <= SHOWN_LENGTH * 1.2:
        return Answer([piece for piece in pieces if piece.text])
    cut = text.rfind(" ", SHOWN_LENGTH - 80, SHOWN_LENGTH)
    cut = cut if cut > 0 else SHOWN_LENGTH
    return Answer(list(_between(pieces, 0, cut)), list(_between(pieces, cut, len(text))))


def _between(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    """The pieces of a stretch of characters."""
    at = 0
    for piece in pieces:
        text = piece.text[max(0, start - at) : max(0, end - at)]
        at += len(piece.text)
        if text:
            yield replace(piece, text=text)
