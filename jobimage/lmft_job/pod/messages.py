"""What the first processes of an attempt's pods tell each other: JSON, one object a line, none longer than 4,096 bytes.

Whoever reaches the port can write to it, so nothing here is trusted: a line that is too long, no JSON, or of another
shape ends the connection that it came by, and texts are cut and made safe to show before they are kept.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from lmft_api.reasons import Reason
from lmft_api.text.shown import one_line
from lmft_api.text.wording import shorten

MOST_BYTES = 4096
MOST_TEXT = 600
_MOST_NUMBER = 1 << 31


class NotUnderstoodError(Exception):
    """A line from the network is none of these messages."""


@dataclass(frozen=True)
class Hello:
    """The first line of a connection: who it is. Not a secret; it keeps pods of different attempts apart."""

    run: str
    attempt: int
    index: int
    pod: str = ""
    node: str = ""


@dataclass(frozen=True)
class Welcome:
    """The answer to :class:`Hello`: from now on silence counts."""


@dataclass(frozen=True)
class Beat:
    """Its sender is alive."""


@dataclass(frozen=True)
class Stop:
    """A pod was asked to stop: all ranks are, and save what they agree on."""

    index: int


@dataclass(frozen=True)
class Cause:
    """A rank or a pod ended such that the attempt cannot go on.

    Attributes:
        index: number of the pod.
        words: the whole message for people, with rank, pod and node.
        reason: from the closed list.
        code: exit code of the pod.
        at_once: nothing that a rank still does is worth a wait, since another one is gone.
        stacks: the other ranks write down what they are doing.
    """

    index: int
    words: str
    reason: str
    code: int
    at_once: bool = False
    stacks: bool = False


@dataclass(frozen=True)
class Bye:
    """Its sender ends as it should, with 0 or 75: no loss."""

    code: int


Message = Hello | Welcome | Beat | Stop | Cause | Bye
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in (Hello, Welcome, Beat, Stop, Cause, Bye)}


def encode(message: Message) -> bytes:
    """The message's line."""
    values = asdict(message)
    fields = {name: shorten(value, MOST_TEXT) if isinstance(value, str) else value for name, value in values.items()}
    body = json.dumps({"kind": type(message).__name__.lower(), **fields}, ensure_ascii=False, separators=(",", ":"))
    return body.encode(errors="replace") + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line.

    Raises:
        NotUnderstoodError: it is none.
    """
    try:
        body = json.loads(line)
        kind = _KINDS[body.pop("kind")]
        parts = {name: part.type for name, part in kind.__dataclass_fields__.items() if name in body}
        message: Message = kind(**{name: _checked(body[name], type_) for name, type_ in parts.items()})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotUnderstoodError(type(error).__name__) from error
    if isinstance(message, Cause) and message.reason not in set(Reason):
        raise NotUnderstoodError("reason")
    return message


def _checked(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(kind)
    if kind is int and not -_MOST_NUMBER < value < _MOST_NUMBER:
        raise ValueError(value)
    return shorten(one_line(value), MOST_TEXT) if kind is str else value


class Reader:
    """Cuts the bytes of a connection into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes.

        Raises:
            NotUnderstoodError: what came is none; messages before it in the same bytes are lost with it.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > MOST_BYTES for line in (*lines, self._rest)):
            raise NotUnderstoodError("too long")
        return [decode(line) for line in lines]
