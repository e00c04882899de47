"""Sentences of messages: cut, ended, and the nearest of known names."""

import difflib
import re
from collections.abc import Iterable, Sequence

ELLIPSIS = "…"
_MOST_COMPARED = 1000


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends like a sentence."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def in_words(names: Sequence[str]) -> str:
    """Names in running text: A · A and B · A, B and C."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def shorten(text: str, length: int) -> str:
    """A text cut with an ellipsis to so many characters."""
    if len(text) <= length:
        return text
    return text[: length - 1].rstrip() + ELLIPSIS if length else ""


def first_line(error: BaseException, length: int = 300) -> str:
    """An error's text on one line, at most so many characters; the name of its type where it has none."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:length] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the known name most like this one, whatever the case; empty when none is near."""
    names = {other.lower(): other for other in list(known)[:_MOST_COMPARED]}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""
