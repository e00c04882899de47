"""A chat template as a program of somebody else: rendered in a sandbox, within limits of time and size.

The environment is that of transformers' ``apply_chat_template``, so that the same template gives the same text there.
Differences: the date is the run's first day, and what a template could use to fill memory is bounded.
"""

import json
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cached_property
from types import FrameType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from lmft_api.text.wording import first_line
from lmft_job.process.confined import memory_within

SECONDS = 5.0
"""Time for one conversation; ordinary templates take less than a thousandth of it."""
MOST_CHARACTERS = 1 << 24
_MEMORY = 1 << 30
"""Bytes that a template may fill while it writes a conversation."""
_FORMAT_WIDTH = 10_000
_MOST_BITS = 1 << 12
_MARK = secrets.token_hex(8)
_OPEN, _CLOSE = f"\ue000{_MARK}<\ue001", f"\ue000{_MARK}>\ue001"


class TemplateRefusedError(ValueError):
    """The template raises an error for a conversation, as it does for roles that it does not know."""


class TemplateBrokenError(ValueError):
    """The template cannot be used at all."""


class TooSlowError(TemplateRefusedError):
    """The template took longer than its time."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: what the template wrote.
        marked: start and end of each of the template's generation blocks, in characters.
    """

    text: str
    marked: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ChatTemplate:
    """A template, with all that its output depends on besides the conversation.

    Attributes:
        text: Jinja.
        tokens: special tokens by their names in templates, such as ``bos_token``.
        day: what ``strftime_now`` says, an ISO date.
    """

    text: str
    tokens: Mapping[str, str]
    day: str

    @property
    def asks_for_the_day(self) -> bool:
        """Whether another day may give other text."""
        return "strftime_now" in self.text

    @cached_property
    def _compiled(self) -> Any:
        try:
            return _environment(date.fromisoformat(self.day)).from_string(self.text)
        except TemplateSyntaxError as error:
            raise TemplateBrokenError(f"line {error.lineno}: {error.message}") from error
        except (TemplateError, RecursionError, ValueError, OverflowError, SyntaxError, MemoryError) as error:
            # The last two are Python's own, which compiles what Jinja writes: blocks nested too deeply.
            raise TemplateBrokenError(first_line(error) or "it is nested too deeply") from error

    def require(self) -> None:
        """Raises TemplateBrokenError if it cannot be compiled."""
        _ = self._compiled

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None, *, prompt: bool = False
    ) -> Rendered:
        """A conversation as text; with ``prompt``, up to where the assistant's answer begins.

        Raises:
            TemplateRefusedError: the template raises an error, takes too long, or writes too much.
            TemplateBrokenError: it cannot be compiled.
        """
        compiled = self._compiled
        try:
            with _limited(SECONDS), memory_within(_MEMORY):
                parts: list[str] = []
                size = 0
                for part in compiled.generate(
                    messages=messages, tools=tools or None, documents=None, add_generation_prompt=prompt, **self.tokens
                ):
                    parts.append(part)
                    size += len(part)
                    if size > MOST_CHARACTERS:
                        raise TemplateRefusedError(f"it writes more than {MOST_CHARACTERS:,} characters")
        except TemplateRefusedError:
            raise
        except TemplateError as error:
            raise TemplateRefusedError(first_line(error)) from error
        except Exception as error:
            raise TemplateRefusedError(f"{type(error).__name__}: {first_line(error)}") from error
        return _without_marks("".join(parts))


def _without_marks(text: str) -> Rendered:
    if _MARK not in text:
        return Rendered(text)
    kept: list[str] = []
    marked: list[tuple[int, int]] = []
    length = 0
    for number, piece in enumerate(text.split(_OPEN)):
        inner, closed, after = piece.partition(_CLOSE) if number else ("", "", piece)
        if number and not closed:
            inner, after = "", inner
        if inner or closed:
            marked.append((length, length + len(inner)))
        kept += [inner, after]
        length += len(inner) + len(after)
    if any(_MARK in piece for piece in kept):
        raise TemplateRefusedError("its generation blocks are within each other")
    return Rendered("".join(kept), tuple(marked))


class _Generation(Extension):
    """``{% generation %}`` … ``{% endgeneration %}`` around what the model is to write."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own attribute

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opened, closed = (nodes.Output([nodes.TemplateData(mark)]) for mark in (_OPEN, _CLOSE))
        return nodes.Scope([opened, *body, closed]).set_lineno(line)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators that could make much of little."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if (
                    isinstance(one, str | bytes | list | tuple)
                    and isinstance(other, int)
                    and len(one) * other > MOST_CHARACTERS
                ):
                    raise SecurityError("a text or list is repeated too often")
            if all(isinstance(one, int) and one.bit_length() > _MOST_BITS for one in (left, right)):
                raise SecurityError("a number is too large")
        if operator == "**" and not (isinstance(right, int | float) and abs(right) <= 64 and abs(left) < 1e9):
            raise SecurityError("a power is too large")
        if operator == "%" and isinstance(left, str) and any(len(run) > 4 for run in _digits(left)):
            raise SecurityError("a width is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **options: Any) -> Any:
        """Methods that pad a text to a width, or repeat it."""
        if getattr(function, "__name__", "") in (
            "ljust",
            "rjust",
            "center",
            "zfill",
            "expandtabs",
            "format",
            "to_bytes",
        ):
            text = getattr(function, "__self__", "")
            given = (*args, *options.values())
            wide = any(isinstance(value, int) and abs(value) > _FORMAT_WIDTH for value in given)
            if wide or (isinstance(text, str) and any(len(run) > 4 for run in _digits(text))):
                raise SecurityError("a width is too large")
        return super().call(context, function, *args, **options)


def _digits(text: str) -> Iterator[str]:
    run = ""
    for letter in text:
        if letter.isdigit():
            run += letter
        elif run:
            yield run
            run = ""
    if run:
        yield run


class _PlainNamespace(Namespace):
    """Without names that begin with an underscore, behind which Python keeps its internals."""

    def __init__(*args: Any, **options: Any) -> None:
        self, *given = args
        attributes = dict(*given, **options)
        for name in attributes:
            _require_plain(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_plain(name)
        super().__setitem__(name, value)


def _require_plain(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no {name}")


def _environment(day: date) -> ImmutableSandboxedEnvironment:
    def raise_exception(message: Any) -> None:
        raise TemplateRefusedError(str(message)[:300])

    def strftime_now(form: str) -> str:
        return datetime.combine(day, time()).strftime(str(form)[:100])

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        if isinstance(indent, int) and indent > 64:
            raise SecurityError("an indent is too large")
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def bounded(name: str) -> Any:
        plain = environment.filters[name]

        def filtered(*args: Any, **options: Any) -> Any:
            if any(isinstance(value, int) and value > _FORMAT_WIDTH for value in (*args, *options.values())):
                raise SecurityError(f"a width of the filter {name} is too large")
            return plain(*args, **options)

        return filtered

    # Not optimized: constant parts of a template would run while it is compiled, outside of its limits.
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False
    )
    environment.filters |= {name: bounded(name) for name in ("center", "indent", "batch", "slice", "round")}
    environment.filters["tojson"] = tojson
    environment.filters.pop("format", None)
    environment.globals |= {
        "raise_exception": raise_exception, "strftime_now": strftime_now, "namespace": _PlainNamespace,
    }  # fmt: skip
    return environment


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises TooSlowError within it after this time. Only a main thread can be interrupted; others are not limited."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"it took longer than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
