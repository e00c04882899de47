"""Helpers for messages: sentences, lists, shortening, and the nearest known name."""

import difflib
import re
from collections.abc import Iterable, Sequence

ELLIPSIS = "…"
_MOST_COMPARED = 1000


def sentence(text: str) -> str:
    """The text with a full stop, unless it already ends like a sentence."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", ELLIPSIS)) else text + "."


def in_words(names: Sequence[str]) -> str:
    """Names joined for running text: A · A and B · A, B and C."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def shorten(text: str, length: int) -> str:
    """The text cut to ``length`` characters with an ellipsis."""
    if len(text) <= length:
        return text
    return text[: length - 1].rstrip() + ELLIPSIS if length else ""


def first_line(error: BaseException, length: int = 300) -> str:
    """An error's message on one line, at most ``length`` characters; the name of its type if it has none."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:length] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the most similar known name, ignoring case; empty when none is similar."""
    names = {other.lower(): other for other in list(known)[:_MOST_COMPARED]}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""


def size(count: int) -> str:
    """Bytes for people: ``14.2 GiB``, ``310 MiB``."""
    return f"{count / (1 << 30):,.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):,.0f} MiB"
