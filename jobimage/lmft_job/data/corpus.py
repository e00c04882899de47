"""The texts and labels of a data set, taken from its rows, with everything that is wrong with them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmft_job.data import fields
from lmft_job.data.files import Problems
from lmft_job.data.packing import Check
from lmft_job.data.sources import SourceRows
from lmft_job.data.splits import Indices
from lmft_job.data.texts import Texts, TextWriter

MOST_LABELS = 1000
_LOOKED_AT = 100
_INTEGER = re.compile(r"^[+-]?\d+$")


@dataclass
class Corpus:
    """Texts on disk, one for each row of the source (empty where it has none), and their labels.

    Attributes:
        texts: the texts.
        labels: one value a row; None where there is none. Empty without a label field.
        label_names: names that the source gives its classes.
    """

    texts: Texts
    labels: list[Any] = field(default_factory=list)
    label_names: list[str] | None = None

    def usable(self, rows: Indices) -> Indices:
        """Those of the rows that have a text and, where wanted, a label."""
        present = self.texts.present(rows)
        if not self.labels:
            return present
        has = np.fromiter((self.labels[row] is not None for row in present.tolist()), bool, len(present))
        kept: Indices = present[has]
        return kept


def collect(
    rows: SourceRows, folder: Path, text_field: str, label_field: str | None, problems: Problems, check: Check
) -> Corpus:
    """Read all rows once; texts go to the folder. Wrong fields are noted in ``problems``."""
    text_path = text_field.split(".")
    label_path = label_field.split(".") if label_field else None
    labels: list[Any] = []
    seen = dict.fromkeys(rows.fields)
    looked = 0
    text_found = label_found = False
    with TextWriter(folder) as writer:
        for batch in rows.batches:
            check()
            texts: list[str | None] = []
            for row in batch:
                if looked < _LOOKED_AT:
                    looked += 1
                    seen |= dict.fromkeys(fields.paths(row))
                value = fields.pick(row, text_path)
                text_found = text_found or value is not None
                try:
                    texts.append(fields.as_text(value))
                except fields.WrongKindError as error:
                    problems.add(f"spec.dataset.textField: {text_field!r} holds {error}")
                    texts.append(None)
                if label_path is not None:
                    label = fields.pick(row, label_path)
                    label_found = label_found or label is not None
                    labels.append(None if label == -1 and rows.label_names else label)
            writer.add(texts)
    for name, wanted, found in (("textField", text_field, text_found), ("labelField", label_field, label_found)):
        if wanted and not found and writer.rows + len(seen) > 0:
            _explain_absence(name, wanted, list(seen), problems)
    return Corpus(Texts(folder), labels, rows.label_names)


def _explain_absence(name: str, wanted: str, known: list[str], problems: Problems) -> None:
    if wanted in known:
        problems.add(f"spec.dataset.{name}: {wanted!r} is null in every row")
    elif any(path.startswith(f"{wanted}.") for path in known):
        inner = ", ".join(path for path in known if path.startswith(f"{wanted}."))
        problems.add(f"spec.dataset.{name}: {wanted!r} is a struct; name one of {inner}")
    else:
        problems.add(f"spec.dataset.{name}: {fields.missing(wanted, known)}")


def number_labels(
    train: list[Any], held_out: list[Any], names: list[str] | None, field_name: str, problems: Problems
) -> tuple[list[str], list[int], list[int]]:
    """Class names, and the labels of both sides as numbers of them.

    Names are the source's own; else the values themselves, sorted (whole numbers by value, text by code point).
    """
    where = f"spec.dataset.labelField: {field_name!r}"
    if names is not None:
        _within(train + held_out, len(names), where, problems)
        return names, _whole(train), _whole(held_out)
    kinds = {type(value) for value in train + held_out}
    if not kinds <= {str, int, float, bool}:
        held = " and ".join(sorted(kind.__name__ for kind in kinds))
        problems.add(f"{where} holds {held} values; one label a row is needed")
        return [], [], []
    if kinds == {str} and all(_INTEGER.match(value) for value in train + held_out):
        train, held_out = [int(value) for value in train], [int(value) for value in held_out]
    elif kinds == {str} and train and all(map(_is_number, train)):
        train, held_out = [float(value) for value in train], [float(v) if _is_number(v) else v for v in held_out]
    if any(isinstance(value, float) and not value.is_integer() for value in train):
        example = next(value for value in train if isinstance(value, float) and not value.is_integer())
        problems.add(f"{where} is continuous (such as {example:g}); classes are needed, regression is not built")
        return [], [], []
    values = {_plain(value) for value in train}
    if len({isinstance(value, str) for value in values}) > 1:
        problems.add(f"{where} mixes text and numbers")
        return [], [], []
    strange = {_plain(value) for value in held_out} - values
    if strange and len(strange) < len(values) + len(strange):
        shown = ", ".join(repr(value) for value in sorted(strange, key=str)[:5])
        problems.add(f"{where}: the held-out rows have labels that no training row has: {shown}")
    if len(values) < 2:
        only = ", ".join(map(repr, values))
        problems.add(f"{where} has only one class in the training rows ({only}); two are needed")
    if len(values) > MOST_LABELS:
        problems.add(f"{where} has {len(values):,} different values, no classes (at most {MOST_LABELS:,})")
    order = {value: number for number, value in enumerate(sorted(values))}
    known = [str(value) for value in order]
    return known, [order[_plain(v)] for v in train], [order.get(_plain(v), 0) for v in held_out]


def _within(labels: list[Any], classes: int, where: str, problems: Problems) -> None:
    outside = {label for label in labels if not isinstance(label, int) or not 0 <= label < classes}
    if outside:
        problems.add(f"{where} holds {sorted(map(str, outside))[0]}, which is none of its {classes} classes")


def _whole(labels: list[Any]) -> list[int]:
    return [label if isinstance(label, int) else 0 for label in labels]


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) else str(value) if isinstance(value, bool) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
