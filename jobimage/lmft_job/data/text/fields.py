"""Finding the text of a row: a dotted path into structs and lists of structs; lists of strings become one text."""

from collections.abc import Iterable, Sequence
from typing import Any

from lmft_api.text.wording import did_you_mean

MOST_SHOWN = 20
_LONGEST_NAME = 60
_SPEAKERS = ("role", "speaker", "sender")
_SAID = ("content", "text", "value", "utterance", "message", "parts")
_TURNS = (
    *({speaker, said} for speaker in _SPEAKERS for said in _SAID),
    {"from", "value"}, {"user", "assistant"}, {"human", "assistant"}, {"human", "gpt"}, {"user", "bot"},
)  # fmt: skip
"""Fields of a turn of a conversation: those of OpenAI, ShareGPT, Gemini, and other common names."""
CONVERT_CONVERSATIONS = (
    "To train on conversations, name their field in spec.dataset.messagesField instead of textField, each message as "
    "{role, content} or {from, value}"
)
"""What to do with conversations, for messages."""


class WrongKindError(ValueError):
    """The path leads to a value that is not text; the message says what it is."""


class ConversationError(WrongKindError):
    """The path leads to a conversation, or into one."""

    def __init__(self) -> None:
        super().__init__(
            "conversations: turns with a role each. To train on one of their fields would lose roles, template and "
            f"end tokens. {CONVERT_CONVERSATIONS}"
        )


def roots(path: str) -> list[str]:
    """Names that a path may begin with: for ``a.b.c`` a, a.b and a.b.c, since a column's name may contain dots."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def pick(row: Any, path: Sequence[str]) -> Any:
    """The value at a path; through a list, the list of its elements' values. None where the path ends early.

    A field whose name contains dots is found too: ``answers.text`` may be a column's name.

    Raises:
        ConversationError: the path leads through turns of a conversation.
    """
    if not path:
        return row
    if isinstance(row, dict):
        if len(path) == 1:
            return row.get(path[0])
        for end in range(len(path), 0, -1):
            name = ".".join(path[:end])
            if name in row and (found := pick(row[name], path[end:])) is not None:
                return found
        return None
    if isinstance(row, list):
        if any(map(is_turn, row)):
            raise ConversationError
        found = [pick(entry, path) for entry in row]
        return [entry for entry in found if entry is not None] or None
    return None


def as_text(value: Any) -> str | None:
    """A string unchanged, a list of strings joined with a space (nested lists too); None for null, NaN and blank.

    Raises:
        WrongKindError: for numbers, structs and other types.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if isinstance(value, list):
        if any(map(is_turn, value)):
            raise ConversationError
        parts = [text for text in map(as_text, value) if text is not None]
        return " ".join(parts) or None
    if isinstance(value, dict):
        raise WrongKindError(f"a struct with the fields {listed(sorted(map(str, value)))}; name one of them")
    if isinstance(value, bytes):
        try:
            return as_text(value.decode())
        except UnicodeDecodeError as error:
            raise WrongKindError("bytes that are not UTF-8 text") from error
    if is_missing(value):
        return None
    raise WrongKindError(f"{type(value).__name__} values, not text")


def is_missing(value: Any) -> bool:
    """Whether a value means "missing": null, NaN (as pandas writes missing values), or blank text."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


def is_written_conversation(text: str) -> bool:
    """Whether a text is a conversation in JSON, or as Python prints one: a cell of a table may contain it so."""
    start = text[:200].lstrip()
    return start.startswith("[{") and any(
        f"{quote}{name}{quote}" in start for quote in "\"'" for name in ("role", "from")
    )


def is_turn(value: Any) -> bool:
    """Whether a value is a turn of a conversation."""
    return isinstance(value, dict) and any(names <= value.keys() for names in _TURNS)


def paths(row: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted path of a row that ends in something other than a struct, or in a conversation."""
    if isinstance(row, list):
        if prefix and any(map(is_turn, row)):
            yield prefix
            return
        row = next((entry for entry in row if isinstance(entry, dict)), None)
    if isinstance(row, dict) and row:
        for name, value in row.items():
            yield from paths(value, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        yield prefix


def missing(name: str, existing: Iterable[str]) -> str:
    """The message for a field that does not exist: the existing fields, and the nearest name."""
    known = list(dict.fromkeys(existing))
    return f"no field {name!r}; the data has {listed(known) or 'no fields'}{did_you_mean(name, known)}"


def listed(names: Sequence[str]) -> str:
    """Names for messages: the first of many, long ones shortened."""
    shown = ", ".join(
        name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names[:MOST_SHOWN]
    )
    return shown + (f", … ({len(names):,} in all)" if len(names) > MOST_SHOWN else "")
