"""Answers before and after training: which words are marked."""

import random
import string

import pytest
from support.limits import within_seconds

from lmft_job.report.samples import MOST_WORDS, Piece, answers_beside, compared, sample_of, tidy


def shown(pieces: list[Piece]) -> str:
    """A text with its marks in brackets."""
    return "".join(f"[{piece.text}]" if piece.changed else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("before", "after", "marked", "other"),
    [
        ("the cat sat", "the dog sat", "the [cat] sat", "the [dog] sat"),
        ("the cat sat", "the big cat sat", "the cat sat", "the [big] cat sat"),
        ("a b c d", "a x y d", "a [b c] d", "a [x y] d"),
        ("one two.", "one two!", "one two[.]", "one two[!]"),
        ("one\n\n  two", "one two", "one\n\n  two", "one two"),  # spaces are not compared
        ("neg (0.51)", "pos (0.97)", "[neg] ([0.51])", "[pos] ([0.97])"),
        ("我爱北京", "我爱上海", "我爱[北京]", "我爱[上海]"),
        ("سلام عليكم", "سلام لك", "سلام [عليكم]", "سلام [لك]"),
        ("नमस्ते दुनिया", "नमस्ते भारत", "नमस्ते [दुनिया]", "नमस्ते [भारत]"),
        ("", "something", "", "something"),
        ("   ", "x", "   ", "[x]"),
        ("<b>x</b> y", "<i>x</i> y", "[<b>x</b>] y", "[<i>x</i>] y"),
    ],
)
def test_words_that_differ_are_marked(before: str, after: str, marked: str, other: str) -> None:
    first, last, remark = compared(before, after)

    assert (shown(first), shown(last)) == (marked, other)
    assert remark == ""


def test_answers_with_hardly_a_word_in_common_are_not_marked_but_remarked_on() -> None:
    before = "of the of the of the of the of the of the of the of the"
    after = "a mutation is a change in the sequence of a gene that may be inherited by offspring"

    first, last, remark = compared(before, after)

    assert not any(piece.changed for piece in (*first, *last))
    assert remark == "Hardly a word is the same in both answers."
    assert compared(before, before)[2] == "Both answers are the same."


def test_no_text_is_lost_or_added_whatever_it_is() -> None:
    draw = random.Random(3)
    letters = [*string.printable, "\u202e", "\x1b", "字", "é", "👩‍🚀", "</script>", " ", " ", "\n"]
    for _ in range(300):
        before, after = ("".join(draw.choices(letters, k=draw.randrange(60))) for _ in range(2))

        first, last, _ = compared(before, after)

        assert "".join(piece.text for piece in first) == before
        assert "".join(piece.text for piece in last) == after


def alternating(filler: str) -> str:
    return " ".join("x" if number % 2 else f"{filler}{number}" for number in range(200_000))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a" * 1_000_000, "b" * 1_000_000),
        ("x " * 500_000, "x y " * 250_000),
        (alternating("a"), alternating("b")),
        ("." * 1_000_000, "," * 1_000_000),
        ("1." * 500_000, "1," * 500_000),
        (" " * 1_000_000 + "x", "\n" * 1_000_000 + "y"),
        ("字" * 1_000_000, "文" * 1_000_000),
    ],
    ids=["a word", "repeated", "alternating", "full stops", "numbers", "blank", "ideograms"],
)
def test_answers_of_a_megabyte_are_compared_at_their_beginning_alone(before: str, after: str) -> None:
    with within_seconds(60):
        first, last, _ = compared(before, after)

    assert "".join(piece.text for piece in first) == before
    assert sum(piece.changed for piece in (*first, *last)) <= 2 * MOST_WORDS


def test_marks_go_on_in_what_is_collapsed() -> None:
    before = "word " * 240
    after = "word " * 218 + "other " * 22

    sample = sample_of("p", before, after)

    assert sample.after is not None
    assert [(piece.text, piece.changed) for piece in sample.after.rest][-1] == ("other " * 21 + "other", True)
    assert "".join(piece.text for piece in (*sample.after.shown, *sample.after.rest)) == tidy(after)


def test_answers_of_runs_are_marked_where_the_first_says_something_else() -> None:
    one, other, third = answers_beside([" is a word", " is a name", " is a word"])

    assert shown(list(one.shown)) == "is a word"
    assert shown(list(other.shown)) == "is a [name]"
    assert shown(list(third.shown)) == "is a word"


def test_what_was_not_sampled_is_not_compared() -> None:
    sample = sample_of("p", None, "an answer")

    assert (sample.before, sample.remark) == (None, "")
    assert sample.after is not None
    assert shown(list(sample.after.shown)) == "an answer"
