"""Makes untrusted text safe to show: in a terminal, in a log, in a status that somebody prints."""

import json
import math
import re
from typing import Any

from lmft_api.text.wording import shorten

_COMMANDS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LINE_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_COMMAND = re.compile(r"#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)


def printable(text: str) -> str:
    """Replaces control characters, bidi overrides and lone surrogates with spaces; newline and tab stay."""
    return _COMMANDS.sub(" ", text)


def shown(text: str) -> str:
    """Printable text for standard output and error in which CI runners find no commands.

    A line that begins with ``::`` is a command to GitHub Actions; ``##[``, ``##vso[`` and ``##teamcity[`` are
    commands to it and others, anywhere in a line. A space inserted into them keeps them readable.
    """
    return _COMMAND.sub("# ", _LINE_COMMAND.sub(r"\1: ", printable(text.replace("\r\n", "\n").replace("\r", "\n"))))


def json_text(value: Any) -> str:
    """Plain data as JSON for standard output: the same value to a reader, and commands to nobody who prints it.

    Characters that command a terminal or a CI runner are escaped. JSON has no NaN and no infinity; they become null.
    """
    text = json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False)
    return _COMMAND.sub(r"\\u0023", _COMMANDS.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(text: str, limit: int | None = None) -> str:
    """Shown text with white space collapsed, cut to ``limit`` characters with an ellipsis."""
    folded = shown(" ".join(printable(text).split()))
    return folded if limit is None else shorten(folded, limit)
