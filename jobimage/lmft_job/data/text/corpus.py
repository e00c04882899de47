"""The texts and labels of a data set, taken from its rows, with every problem found in them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmft_job.data.labels import plain
from lmft_job.data.problems import Problems
from lmft_job.data.sources.lines import Places
from lmft_job.data.sources.source import SourceRows
from lmft_job.data.sources.splits import Indices
from lmft_job.data.text import fields
from lmft_job.data.text.texts import Texts, TextWriter
from lmft_job.data.tokens.packing import Check

_LOOKED_AT = 100


@dataclass
class Corpus:
    """Texts on disk, one for each row of the source (empty if it has none), and their labels.

    Attributes:
        texts: texts on disk.
        labels: one value for each row; None if there is none. Empty without a label field.
        label_names: names that the source gives its classes.
        look_alike: the other format that plain text looks like.
        spans: split, first row and end of each slice that makes up these rows, if the source knows.
        places: where each row is.
    """

    texts: Texts
    labels: list[Any] = field(default_factory=list)
    label_names: list[str] | None = None
    look_alike: str | None = None
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    places: Places = field(default_factory=Places)

    def usable(self, rows: Indices) -> Indices:
        """Those of the rows that have a text and, if required, a label."""
        present = self.texts.present(rows)
        if not self.labels:
            return present
        has = np.fromiter((self.labels[row] is not None for row in present.tolist()), bool, len(present))
        kept: Indices = present[has]
        return kept


class Reader(Protocol):
    """Takes from a row what is trained on.

    Attributes:
        fields: the manifest's names of its fields, and the dotted path of each.
        found: those that had a value in any row.
    """

    fields: dict[str, str]
    found: set[str]

    def read(self, row: Any, place: Callable[[], str], *, careful: bool) -> str | None:
        """A text; None for a row that has none. ``place`` says where the row is; look closely if ``careful``."""

    def all_read(self) -> None:
        """Called after the last row."""


class TextReader:
    """Takes the text at one path."""

    def __init__(self, text_field: str, problems: Problems) -> None:
        self.fields = {"textField": text_field}
        self.found: set[str] = set()
        self._path = text_field.split(".")
        self._problems = problems

    def read(self, row: Any, place: Callable[[], str], *, careful: bool) -> str | None:
        """The text; what is no text is a problem."""
        text_field = self.fields["textField"]
        value = _found(row, self._path, "textField", text_field, self._problems)
        if value is not None:
            self.found.add("textField")
        try:
            text = fields.as_text(value)
            if careful and text is not None and fields.is_written_conversation(text):
                raise fields.ConversationError
        except fields.WrongKindError as error:
            self._problems.add(f"spec.dataset.textField: {text_field!r} holds {error}")
            return None
        except RecursionError:
            self._problems.add(f"spec.dataset.textField: {text_field!r} holds values that are nested too deeply")
            return None
        return text

    def all_read(self) -> None:
        """Nothing is left to tell."""


def collect(
    rows: SourceRows, folder: Path, reader: Reader, label_field: str | None, problems: Problems, check: Check
) -> Corpus:
    """Read all rows once; texts are written to the folder. Missing or wrong fields are added to ``problems``."""
    label_path = label_field.split(".") if label_field else None
    labels: list[Any] = []
    places = Places()
    seen = dict.fromkeys(rows.fields)
    label_found = False
    with TextWriter(folder) as writer:
        for batch in rows.batches:
            check()
            texts: list[str | None] = []
            for row in batch:
                number = len(places)
                places.add(row)
                if number < _LOOKED_AT:
                    seen |= dict.fromkeys(_paths(row))
                texts.append(reader.read(row, partial(places.of, number), careful=number < _LOOKED_AT - 1))
                if label_path is not None:
                    label = _found(row, label_path, "labelField", label_field, problems)
                    label_found = label_found or label is not None
                    labels.append(None if label == -1 and rows.label_names else plain(label))
            writer.add(texts)
    reader.all_read()
    if writer.rows + len(seen) > 0:
        for name, path in reader.fields.items():
            if name not in reader.found:
                _explain_absence(name, path, list(seen), problems)
        if label_field and not label_found:
            _explain_absence("labelField", label_field, list(seen), problems)
    return Corpus(Texts(folder), labels, rows.label_names, rows.look_alike, rows.spans, places)


def _found(row: Any, path: list[str], name: str, wanted: str | None, problems: Problems) -> Any:
    """The value at a path, or a marker that the value was rejected."""
    try:
        return fields.pick(row, path)
    except fields.WrongKindError as error:
        problems.add(f"spec.dataset.{name}: {wanted!r} holds {error}")
    except RecursionError:
        problems.add(f"spec.dataset.{name}: {wanted!r} holds values that are nested too deeply")
    return ""


def _paths(row: Any) -> list[str]:
    try:
        return list(fields.paths(row))
    except RecursionError:
        return [str(name) for name in row]


def _explain_absence(name: str, wanted: str, known: list[str], problems: Problems) -> None:
    if wanted in known:
        problems.add(f"spec.dataset.{name}: {wanted!r} is null in every row")
    elif any(path.startswith(f"{wanted}.") for path in known):
        inner = fields.listed([path for path in known if path.startswith(f"{wanted}.")])
        problems.add(f"spec.dataset.{name}: {wanted!r} is a struct; name one of {inner}")
    else:
        problems.add(f"spec.dataset.{name}: {fields.missing(wanted, known)}")
