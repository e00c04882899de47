"""Finding the text of a row: a dotted path into structs and lists of structs; lists of strings become one text."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class WrongKindError(ValueError):
    """The path leads to something that is no text; says what it is."""


def pick(row: Any, path: Sequence[str]) -> Any:
    """The value at a path; through a list, the list of its elements' values. None where the path ends early."""
    value = row
    for depth, name in enumerate(path):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list):
            found = [pick(entry, path[depth:]) for entry in value]
            return [entry for entry in found if entry is not None] or None
        else:
            return None
    return value


def as_text(value: Any) -> str | None:
    """A string as it is, a list of strings joined with a space (nested lists too); None for null and blank.

    Raises:
        WrongKindError: for numbers, structs and the like.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if isinstance(value, list):
        parts = [text for text in map(as_text, value) if text is not None]
        return " ".join(parts) or None
    if isinstance(value, dict):
        raise WrongKindError(f"a struct with the fields {', '.join(sorted(map(str, value)))}; name one of them")
    raise WrongKindError(f"{type(value).__name__} values, not text")


def paths(row: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted path of a row that ends in something other than a struct."""
    if isinstance(row, list):
        row = next((entry for entry in row if isinstance(entry, dict)), None)
    if isinstance(row, dict) and row:
        for name, value in row.items():
            yield from paths(value, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        yield prefix


def missing(name: str, existing: Iterable[str]) -> str:
    """What to tell when a field does not exist: what does, and the nearest name."""
    known = list(dict.fromkeys(existing))
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"no field {name!r}; the data has {shown or 'no fields'}{hint}"
