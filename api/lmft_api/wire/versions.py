"""Format versions of what operator, job and storage exchange, and what neighbouring releases may expect of each other.

A file or message says in ``format`` what a reader must know to follow it; one without it has format 1. A reader passes
over keys that it does not know, so what is new goes into a new key that may be passed over, or, where that would be
wrong, comes with a higher format. A reader refuses a format above its own: another release can read it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from lmft_api import __version__

FORMAT_KEY = "format"
FIRST_FORMAT = 1


class NewerFormatError(Exception):
    """A newer release wrote this; the text says what to do, for whoever chooses the release."""


def require_format(content: Mapping[str, Any], newest: int, what: str) -> None:
    """Raise unless a reader that knows formats up to ``newest`` can follow the content.

    Args:
        content: the JSON object as it was read.
        newest: highest format that the reader knows.
        what: the file or message, for the error's text.

    Raises:
        NewerFormatError: its format is a higher one.
        ValueError: its format is not a number from 1.
    """
    found = content.get(FORMAT_KEY, FIRST_FORMAT)
    if isinstance(found, bool) or not isinstance(found, int) or found < FIRST_FORMAT:
        raise ValueError(f"{FORMAT_KEY} is not a number from {FIRST_FORMAT}")
    if found > newest:
        raise NewerFormatError(
            f"{what} has format {found} and was written by a newer release; this one, {__version__}, reads up to "
            f"{newest}. Run it with the image of the newer release"
        )


def format_check(newest: int, what: str) -> Any:
    """A validator for pydantic's types: :func:`require_format` before anything else is looked at."""

    def followed(content: Any) -> Any:
        if isinstance(content, Mapping):
            require_format(content, newest, what)
        return content

    return model_validator(mode="before")(followed)
