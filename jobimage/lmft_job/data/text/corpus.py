"""The texts and labels of a data set, taken from its rows, with every problem found in them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmft_job.data.labels import plain
from lmft_job.data.problems import Problems
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
    """

    texts: Texts
    labels: list[Any] = field(default_factory=list)
    label_names: list[str] | None = None
    look_alike: str | None = None
    spans: list[tuple[str, int, int]] = field(default_factory=list)

    def usable(self, rows: Indices) -> Indices:
        """Those of the rows that have a text and, if required, a label."""
        present = self.texts.present(rows)
        if not self.labels:
            return present
        has = np.fromiter((self.labels[row] is not None for row in present.tolist()), bool, len(present))
        kept: Indices = present[has]
        return kept


def collect(
    rows: SourceRows, folder: Path, text_field: str, label_field: str | None, problems: Problems, check: Check
) -> Corpus:
    """Read all rows once; texts are written to the folder. Missing or wrong fields are added to ``problems``."""
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
                    seen |= dict.fromkeys(_paths(row))
                value = _found(row, text_path, "textField", text_field, problems)
                text_found = text_found or value is not None
                texts.append(_text(value, text_field, problems, careful=looked < _LOOKED_AT))
                if label_path is not None:
                    label = _found(row, label_path, "labelField", label_field, problems)
                    label_found = label_found or label is not None
                    labels.append(None if label == -1 and rows.label_names else plain(label))
            writer.add(texts)
    for name, wanted, found in (("textField", text_field, text_found), ("labelField", label_field, label_found)):
        if wanted and not found and writer.rows + len(seen) > 0:
            _explain_absence(name, wanted, list(seen), problems)
    return Corpus(Texts(folder), labels, rows.label_names, rows.look_alike, rows.spans)


def _found(row: Any, path: list[str], name: str, wanted: str | None, problems: Problems) -> Any:
    """The value at a path, or a marker that the value was rejected."""
    try:
        return fields.pick(row, path)
    except fields.WrongKindError as error:
        problems.add(f"spec.dataset.{name}: {wanted!r} holds {error}")
    except RecursionError:
        problems.add(f"spec.dataset.{name}: {wanted!r} holds values that are nested too deeply")
    return ""


def _text(value: Any, text_field: str, problems: Problems, *, careful: bool) -> str | None:
    try:
        text = fields.as_text(value)
        if careful and text is not None and fields.is_written_conversation(text):
            raise fields.ConversationError
    except fields.WrongKindError as error:
        problems.add(f"spec.dataset.textField: {text_field!r} holds {error}")
        return None
    except RecursionError:
        problems.add(f"spec.dataset.textField: {text_field!r} holds values that are nested too deeply")
        return None
    return text


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
