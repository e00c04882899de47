"""Labels of any kind as class numbers, in the order that the source or the model gives them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any

from lmft_job.data.problems import Problems
from lmft_job.data.text.fields import is_missing, listed

MOST_LABELS = 1000
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$", re.ASCII)
_PLAIN_INTEGER = re.compile(r"^(0|-?[1-9]\d*)$", re.ASCII)
_UNNAMED = re.compile(r"^LABEL_\d+$")


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: in the order of their numbers.
        train: class number of each training row.
        held_out: class number of each held-out row.
    """

    names: list[str]
    train: list[int]
    held_out: list[int]


def plain(label: Any) -> Any:
    """A label as it is compared: text, a whole number, or None if there is none; other values are returned unchanged.

    Text is kept as written, including leading zeros of a number.
    """
    if is_missing(label):
        return None
    if isinstance(label, bool):
        return str(label)
    if isinstance(label, bytes):
        try:
            return label.decode()
        except UnicodeDecodeError:
            return label
    if isinstance(label, float | Decimal):
        whole = Decimal(label)
        return int(whole) if whole.is_finite() and whole == whole.to_integral_value() else label
    return label


def model_labels(id2label: dict[int, str] | None) -> list[str]:
    """Class names of a model; empty if it only has the library's placeholders."""
    names = [str((id2label or {})[number]) for number in sorted(id2label or {})]
    unnamed = all(_UNNAMED.match(name) or _PLAIN_INTEGER.match(name) for name in names)
    return [] if unnamed or len(set(names)) < len(names) or len(names) < 2 else names


def number_labels(
    train: Sequence[Any],
    held_out: Sequence[Any],
    names: list[str] | None,
    field_name: str,
    problems: Problems,
    of_model: Sequence[str] = (),
) -> Classes:
    """Class names, and the labels of both sides as class numbers.

    Args:
        train: labels as :func:`plain` gives them, none missing.
        held_out: likewise.
        names: class names of the source, whose labels are then numbers.
        field_name: for messages.
        problems: receives what is wrong; then there are no classes.
        of_model: class names of the model. If they match the data's, or the data has numbers of them, they are used in
            the model's order, which its head was trained with.

    If neither source nor model has names, the values themselves are the names, sorted (whole numbers by value, text by
    code point).
    """
    where = f"spec.dataset.labelField: {field_name!r}"
    strange = {type(value).__name__ for value in chain(train, held_out) if type(value) not in (str, int, float)}
    if strange:
        held = " and ".join(sorted(strange))
        problems.add(
            f"{where} holds {held} values; one label per row is needed: text, a whole number or true and false"
        )
        return Classes([], [], [])
    values = dict.fromkeys(chain(train, held_out))
    if names is not None:
        outside = [value for value in values if type(value) is not int or not 0 <= value < len(names)]
        if outside:
            problems.add(f"{where} holds {str(outside[0])[:60]!r}, which is not one of its {len(names)} classes")
            return Classes([], [], [])
        if len(set(train)) < 2:
            problems.add(_one_class([names[value] for value in train], where))
            return Classes([], [], [])
        train, held_out = [names[value] for value in train], [names[value] for value in held_out]
        values = dict.fromkeys(names)
    elif not _are_classes(train, held_out, where, problems):
        return Classes([], [], [])
    else:
        values = dict.fromkeys(train)
    if (aligned := _aligned(list(values), of_model)) is not None:
        number = aligned.__getitem__
        return Classes(list(of_model), [number(value) for value in train], [number(value) for value in held_out])
    order = list(values) if names is not None else _ordered(list(values))
    numbers = {value: number for number, value in enumerate(order)}
    known = [str(value) for value in order]
    return Classes(known, [numbers[value] for value in train], [numbers[value] for value in held_out])


def _are_classes(train: Sequence[Any], held_out: Sequence[Any], where: str, problems: Problems) -> bool:
    before = len(problems.found) + problems.more
    counts = Counter(train)
    both = counts + Counter(held_out)
    kinds = {type(value) for value in both}
    fraction = _fraction(list(both))
    if fraction is not None:
        problems.add(
            f"{where} is continuous (such as {fraction}); classes are needed, regression is not supported. If these "
            "are classes, give them names that are not numbers, such as v1.5"
        )
    elif int in kinds and {value for value in both if isinstance(value, str)} <= {"True", "False"} and str in kinds:
        problems.add(
            f"{where} mixes true and false with numbers; write all labels the same way: 1 for true and 0 for false, if "
            "that is what they mean, or all of them as text"
        )
    elif str in kinds and int in kinds:
        problems.add(f"{where} mixes text and numbers; write all labels the same way")
    elif len(both) > MOST_LABELS:
        problems.add(f"{where} has {len(counts):,} different values, too many for classes (at most {MOST_LABELS:,})")
    else:
        for one, other in _twins([value for value in both if isinstance(value, str)]):
            problems.add(
                f"{where} has {one!r} and {other!r}, which differ only in whitespace or Unicode normalisation; write "
                "them the same way"
            )
        _require_known(counts, both, where, problems)
    return len(problems.found) + problems.more == before


def _require_known(train: Counter[Any], both: Counter[Any], where: str, problems: Problems) -> None:
    """Every class needs training rows."""
    strange = sorted((value for value in both if value not in train), key=str)
    if strange:
        shown = listed([f"{value!r} ({both[value]} row{'s' if both[value] > 1 else ''})" for value in strange])
        problems.add(
            f"{where}: the held-out rows have labels that no training row has: {shown}. Add rows of them, remove them, "
            "or choose the held-out rows yourself with evalSplit"
        )
    if len(train) < 2:
        problems.add(_one_class(train, where))


def _one_class(train: Iterable[Any], where: str) -> str:
    only = ", ".join(map(repr, dict.fromkeys(train)))
    return (
        f"{where} has only one class in the training rows ({only}); two are needed. Are the rows sorted by label, and "
        "is spec.dataset.split a slice of them?"
    )


def _fraction(values: list[Any]) -> str | None:
    """A value which shows that the labels are measurements and not classes."""
    for value in values:
        if isinstance(value, float):
            return f"{value:g}"
    if values and all(isinstance(value, str) and _NUMBER.match(value) for value in values):
        return next((value for value in values if not float(value).is_integer()), None)
    return None


def _twins(values: list[str]) -> list[tuple[str, str]]:
    """Pairs that people read as the same word: they differ in spaces, or in composed and decomposed letters."""
    seen: dict[str, str] = {}
    found = []
    for value in values:
        form = " ".join(unicodedata.normalize("NFC", value).split())
        if form in seen:
            found.append((seen[form], value))
        seen.setdefault(form, value)
    return found


def _ordered(values: list[Any]) -> list[Any]:
    """Numbers by value, including numbers written as text, as in CSV; other text by code point."""
    if all(isinstance(value, str) and _NUMBER.match(value) for value in values):
        return sorted(values, key=lambda value: (float(value), value))
    return sorted(values)


def _aligned(values: list[Any], names: Sequence[str]) -> dict[Any, int] | None:
    """The model's class number of each value: by name (ignoring case) or by number; None if they do not match."""
    if not names:
        return None
    ways: list[Callable[[Any], Any]] = [str, lambda value: str(value).casefold()]
    for way in ways:
        known = {way(name): number for number, name in enumerate(names)}
        if len(known) == len(names) and all(way(value) in known for value in values):
            found = {value: known[way(value)] for value in values}
            if len(set(found.values())) == len(values):
                return found
    if all(_PLAIN_INTEGER.match(str(value)) and 0 <= int(value) < len(names) for value in values):
        return {value: int(value) for value in values}
    return None
