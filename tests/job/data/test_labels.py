"""Labels as people write them: kept as written, in the model's order where it has one, or refused with what to do."""

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from lmft_job.data.labels import Classes, model_labels, number_labels, plain
from lmft_job.data.problems import Problems

MOOD = ["positive", "negative", "neutral"]


def numbered(
    train: Sequence[Any], held_out: Sequence[Any] = (), names: list[str] | None = None, of_model: Sequence[str] = ()
) -> tuple[Classes, list[str]]:
    problems = Problems()
    held_out = held_out or train
    classes = number_labels(
        [plain(value) for value in train], [plain(value) for value in held_out], names, "label", problems, of_model
    )
    return classes, problems.all()


# Labels of the rows, the source's names, the model's names; then the classes' names, and each row's class.
KEPT: dict[str, tuple[list[Any], list[str] | None, list[str], list[str], list[int]]] = {
    "text": (["b", "a", "b"], None, [], ["a", "b"], [1, 0, 1]),
    "zeros in front": (["0202", "0101", "202"], None, [], ["0101", "0202", "202"], [1, 0, 2]),
    "numbers as text, by value": (["10", "2", "1"], None, [], ["1", "2", "10"], [2, 1, 0]),
    "whole numbers": ([10, 2, -1], None, [], ["-1", "2", "10"], [2, 1, 0]),
    "beyond 64 bits": ([2**70, 1], None, [], ["1", str(2**70)], [1, 0]),
    "floats that are whole": ([1.0, 0.0, 2.0], None, [], ["0", "1", "2"], [1, 0, 2]),
    "decimals that are whole": ([Decimal("1"), Decimal("0.0")], None, [], ["0", "1"], [1, 0]),
    "true and false": ([True, False], None, [], ["False", "True"], [1, 0]),
    "bytes": ([b"b", b"a"], None, [], ["a", "b"], [1, 0]),
    "words that float() takes": (["nan", "inf", "1_000"], None, [], ["1_000", "inf", "nan"], [2, 1, 0]),
    "the source's names": ([1, 0, 1], ["neg", "pos"], [], ["neg", "pos"], [1, 0, 1]),
    "the model's order": (["neutral", "negative", "positive"], None, MOOD, MOOD, [2, 1, 0]),
    "the model's order, in capitals": (["NEUTRAL", "Negative"], None, MOOD, MOOD, [2, 1]),
    "the model's order, of a part": (["neutral", "positive"], None, MOOD, MOOD, [2, 0]),
    "the model's order against the source's": ([0, 1, 2], ["negative", "neutral", "positive"], MOOD, MOOD, [1, 2, 0]),
    "the model's names for numbers": ([2, 0], None, MOOD, MOOD, [2, 0]),
    "the model's names for numbers as text": (["2", "0"], None, MOOD, MOOD, [2, 0]),
    "other labels than the model's": (["ham", "spam"], None, MOOD, ["ham", "spam"], [0, 1]),
    "more numbers than the model's": ([0, 3], None, MOOD, ["0", "3"], [0, 1]),
}


@pytest.mark.parametrize("case", KEPT)
def test_labels_are_kept(case: str) -> None:
    rows, names, of_model, expected, numbers = KEPT[case]
    classes, problems = numbered(rows, rows[:1], names, of_model)
    assert problems == []
    assert (classes.names, classes.train, classes.held_out) == (expected, numbers, numbers[:1])


REFUSED: dict[str, tuple[list[Any], list[Any], str]] = {
    "one class": (["a", "a"], [], "only one class in the training rows ('a'); two are needed. Are the rows sorted"),
    "a class with one row, which is held out": (
        ["a", "b"], ["a", "c"],
        "labels that no training row has: 'c' (1 row). Add rows of them, remove them, or choose the held-out rows "
        "yourself with evalSplit",
    ),
    "a blank at the end": (["pos", "pos ", "neg"], [], "has 'pos' and 'pos ', which differ only in whitespace"),
    "composed and decomposed": (["caf\xe9", "cafe\u0301"], [], "differ only in whitespace or Unicode normalisation"),
    "measures": ([0.25, 1.0], [], "is continuous (such as 0.25)"),
    "measures as text": (["0.25", "1.0"], [], "is continuous (such as 0.25); classes are needed, regression is not"),
    "infinity": ([float("inf"), 1.0], [], "is continuous (such as inf)"),
    "true among numbers": (["True", 0, 2], [], "mixes true and false with numbers; write all labels the same"),
    "text and numbers": (["a", 1], [], "mixes text and numbers; write all labels the same way"),
    "lists": ([[1], [2]], [], "holds list values; one label per row is needed"),
    "structs": ([{"a": 1}, "b"], [], "holds dict values"),
    "dates": ([datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)], [], "holds date values; one label per row"),
    "bytes that are no text": ([b"\xff", b"a"], [], "holds bytes values"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_are_no_classes_are_refused(case: str) -> None:
    train, held_out, told = REFUSED[case]
    classes, problems = numbered(train, held_out)
    assert classes.names == []
    assert len(problems) == 1
    assert problems[0].startswith("spec.dataset.labelField: 'label'")
    assert told in problems[0]


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  ", "\n"])
def test_a_missing_label_is_none(missing: Any) -> None:
    assert plain(missing) is None


def test_the_sources_classes_bound_its_numbers_and_one_of_them_is_not_enough() -> None:
    assert "holds '5', which is not one of its 2 classes" in numbered([0, 5], [0], ["a", "b"])[1][0]
    assert "only one class in the training rows ('b')" in numbered([1, 1], [1], ["a", "b"])[1][0]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({0: "positive", 1: "negative"}, ["positive", "negative"]),
        ({1: "negative", 0: "positive"}, ["positive", "negative"]),
        ({0: "LABEL_0", 1: "LABEL_1"}, []),
        ({0: "0", 1: "1"}, []),
        ({0: "same", 1: "same"}, []),
        ({0: "alone"}, []),
        ({}, []),
        (None, []),
    ],
)
def test_a_models_names_count_when_somebody_gave_them(given: dict[int, str] | None, names: list[str]) -> None:
    assert model_labels(given) == names
