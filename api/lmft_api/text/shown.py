"""Text of others made fit to be shown: in a terminal, in a log, in a status that somebody prints."""

import re

_COMMANDS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LINE_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_COMMAND = re.compile(r"#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)


def printable(text: str) -> str:
    """The text with blanks for what commands a terminal: control characters but line ends and tabs, turned writing.

    And for halves of characters, which UTF-8 cannot hold.
    """
    return _COMMANDS.sub(" ", text)


def shown(text: str) -> str:
    """Printable text for standard output and standard error, where it is no command to a CI runner either.

    A line that begins with ``::`` is one to GitHub Actions; ``##[``, ``##vso[`` and ``##teamcity[`` are ones to it and
    others, wherever they stand. A blank within keeps them readable.
    """
    return _COMMAND.sub("# ", _LINE_COMMAND.sub(r"\1: ", printable(text.replace("\r\n", "\n").replace("\r", "\n"))))


def one_line(text: str, limit: int | None = None) -> str:
    """Shown text with white space folded, cut with an ellipsis to ``limit`` characters."""
    folded = shown(" ".join(printable(text).split()))
    return folded if limit is None or len(folded) <= limit else folded[: limit - 1].rstrip() + "…"
