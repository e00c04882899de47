"""Changes to a manifest that a command line asks for: ``training.learningRate=5e-5``, and the values of a sweep."""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lmft_api.manifest.reader import Scalar, read_values
from lmft_api.schema.structural import schema_at, structural_schema
from lmft_api.spec import LMFineTuneSpec

_PART = re.compile(r'\.?([A-Za-z_][^.\[\]"=]*)|\[(\d+)\]|\["([^"]+)"\]')
_MOST_VALUES = 64


@dataclass(frozen=True)
class Change:
    """Another value for a field of the spec.

    Attributes:
        path: names and indices that lead to the field from ``spec``.
        value: plain data; None takes the field away.
    """

    path: tuple[str | int, ...]
    value: Any

    @property
    def field(self) -> str:
        """The path as people write it: ``training.adapter.rank``, ``sample.prompts[0]``."""
        return "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" if re.fullmatch(r"\w+", part) else f'["{part}"]'
            for part in self.path
        ).removeprefix(".")


def parse_change(text: str) -> Change:
    """``field=value`` with one YAML value; nothing after the sign takes the field away.

    Raises:
        ValueError: the text is not of this form; the message says what is.
    """
    path, given = _split(text)
    values = read_values(given)
    if len(values) > 1:
        raise ValueError(f'"{text}": is more than one value; write a list as {text.partition("=")[0]}=[{given}]')
    return Change(path, _typed(path, values[0]) if values else None)


def parse_choices(text: str) -> list[Change]:
    """``field=value,value…``, each of which is one YAML value.

    Raises:
        ValueError: the text is not of this form, or a value is given twice; the message says what is.
    """
    path, given = _split(text)
    changes = [Change(path, _typed(path, value)) for value in read_values(given)]
    if not changes:
        raise ValueError(f'"{text}": has no values; write FIELD=VALUE,VALUE')
    if len(changes) > _MOST_VALUES:
        raise ValueError(f'"{text[:60]}…": has {len(changes)} values, at most {_MOST_VALUES} are taken')
    if twice := next((change.value for at, change in enumerate(changes) if change in changes[:at]), None):
        raise ValueError(f'"{text}": {twice} is given twice')
    return changes


def changed(document: Any, changes: Iterable[Change]) -> Any:
    """A copy of a manifest with the changes; what is not an object on the way to a field is replaced by one.

    Raises:
        ValueError: an index names no entry of a list.
    """
    document = copy.deepcopy(document)
    for change in changes:
        _set(document, change)
    return document


def _set(document: dict[str, Any], change: Change) -> None:
    inner: Any = document
    for part, following in zip(("spec", *change.path), change.path, strict=False):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(part, int):
            _require_entry(inner, part, change)
        there = inner[part] if isinstance(part, int) else inner.get(part)
        if not isinstance(there, type(empty)):
            there = empty
            inner[part] = there
        inner = there
    last = change.path[-1]
    if isinstance(last, int):
        _require_entry(inner, last, change)
    if change.value is not None:
        inner[last] = change.value
    elif isinstance(last, int) or last in inner:
        del inner[last]


def _require_entry(entries: list[Any], index: int, change: Change) -> None:
    if index >= len(entries):
        raise ValueError(f'"{change.field}": the manifest has {len(entries)} entries there, counted from 0')


def _split(text: str) -> tuple[tuple[str | int, ...], str]:
    field, sign, value = text.partition("=")
    parts: list[str | int] = []
    at = 0
    while at < len(field) and (match := _PART.match(field, at)):
        parts.append(int(match[2]) if match[2] else match[1] or match[3])
        at = match.end()
    if parts[:1] == ["spec"]:
        del parts[0]
    if not sign or at < len(field) or not parts or isinstance(parts[0], int):
        raise ValueError(f'"{text}": write FIELD=VALUE with a field of the spec, such as training.learningRate=5e-5')
    return tuple(parts), value


def _typed(path: tuple[str | int, ...], value: Scalar | Any) -> Any:
    """The value, or its letters where the field takes text: ``5e-5`` is a number in YAML and text in a spec."""
    if not isinstance(value, Scalar):
        return value
    wanted = schema_at(structural_schema(LMFineTuneSpec), list(path)).get("type")
    return value.text if wanted == "string" and value.value is not None else value.value
