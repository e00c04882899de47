"""Counts in settings that make whoever reads them loop: a billion layers are built one by one, until memory ends.

Widths need no bound of their own: a tensor that is too large is refused at once, by its size.
"""

import re
from collections.abc import Iterator
from typing import Any

_MOST = (
    (re.compile(r"(.*_)?(n_?)?(layers?|depths?|blocks|stages|experts)", re.IGNORECASE), 4_096),
    (re.compile(r"(num|n)_(labels|classes)"), 1_000_000),
    (re.compile(r"extra_ids|num_madeup_words|offset"), 100_000),
)
"""Names of such settings, and the most that is read: several times what any published model has."""


def excessive(given: Any, inside: str = "") -> Iterator[tuple[str, str]]:
    """Counts beyond what is read, at every depth of settings: where they are, and what is wrong as text after that.

    Args:
        given: settings as JSON; must not nest deeper than Python's stack.
        inside: of what they are a part, such as ``text_config.``.
    """
    if isinstance(given, list):
        for inner in given:
            yield from excessive(inner, inside)
    if not isinstance(given, dict):
        return
    for name, value in given.items():
        counts = value if isinstance(value, list) else [value]
        for pattern, most in _MOST:
            wrong = [count for count in counts if isinstance(count, int) and abs(count) > most]
            if wrong and pattern.fullmatch(name):
                yield f"{inside}{name}", f"is {_short(wrong[0])}, and at most {most:,} are read"
        yield from excessive(value, f"{inside}{name}.")


def _short(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**15 else "a number of more than 15 digits"
