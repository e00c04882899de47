"""Parses the API server's responses safely, whatever somebody has written into an object.

JSON that nests deeper than Python's recursion limit, or that is larger than any object that we work with, is not
parsed: only the metadata of such an object is extracted, which is enough to tell its owner what is wrong with it. All
other objects are reduced to their shape (:mod:`shapes`), so that fields nobody reads take no memory.
"""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lmft_operator.domain.shapes import SHAPES, UNREAD

logger = logging.getLogger(__name__)

MAX_DEPTH = 200
"""Levels of nesting that are parsed. A CustomResourceDefinition has about 60, a pod a dozen; Python fails at 990."""
MAX_OBJECT_BYTES = 1024 * 1024
"""Largest object that is parsed; of larger ones only the metadata is read."""
MAX_PAGE_BYTES = MAX_OBJECT_BYTES
"""Largest page that is parsed; the objects of a larger one are requested one by one."""
MAX_SINGLE = 64
"""Most small objects in a row that are required before several are requested at a time again."""
CUT = "spec: the object is larger than 1 MiB or nests more than 200 levels, and is not read"

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
_KEY = re.compile(r'\s*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*', re.DOTALL)
_OPEN, _FIRST, _COMMA = re.compile(r"\s*\{"), re.compile(r"\s*\["), re.compile(r"\s*,")
_INTEGER = re.compile(r"-?\d{1,18}(?![\d.eE])")
_EVENT = re.compile(r'\s*\{\s*"type"\s*:\s*"([A-Z]+)"\s*,\s*"object"\s*:\s*')
_BARE = re.compile(r"[^][{},\s]*")
_METADATA = '"metadata":{'
_DECODER = json.JSONDecoder()
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_PICKED = frozenset({"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"}) | {
    "deletionTimestamp", "labels",
}  # fmt: skip

JsonDict = dict[str, Any]


class UnreadableError(ValueError):
    """The text is not an object, and no metadata can be extracted from it."""


def depth(text: str) -> int:
    """Levels of nesting of a JSON text, counted without parsing."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return MAX_DEPTH  # it cannot have more
    outside = _STRING.sub("", text)
    brackets = re.sub(r"[^][{}]+", "", outside)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def fits(text: str) -> bool:
    """Whether a JSON text is small and shallow enough to be parsed whole."""
    return len(text) <= MAX_OBJECT_BYTES and depth(text) <= MAX_DEPTH


def read_object(data: bytes | str) -> JsonDict:
    """Read a response that is not a list: an object in its shape if its kind is known, else as it is.

    Raises:
        UnreadableError: it is not a JSON object, or it is too large or too deep to be parsed and has no metadata.
    """
    return read_item(data if isinstance(data, str) else data.decode("utf-8", "replace"))


def read_item(text: str, kind: str = "") -> JsonDict:
    """Read one object of the API server's in its shape; only its metadata if it is too large or too deep.

    Args:
        text: as JSON.
        kind: kind of the object if the text does not name it: a list names the kind once.

    Raises:
        UnreadableError: not even the metadata can be read.
    """
    if fits(text):
        try:
            return in_shape(_parsed(text), kind)
        except UnreadableError:
            pass  # such as an integer of 5,000 digits, which Python refuses to make
    return cut(text, kind)


def in_shape(body: JsonDict, kind: str = "") -> JsonDict:
    """The object without the fields that are not read for its kind; an unknown kind stays as it is."""
    shape = SHAPES.get(str(body.get("kind") or kind))
    if shape is None:
        return body
    return {**({"kind": kind} if kind else {}), **shape(body)}


def read_list(text: str, kind: str, *, whole: bool | None = None) -> "Page":
    """Read a page of a list, its items in their shapes. An item without readable metadata is left out.

    Args:
        text: as JSON.
        kind: kind of the items.
        whole: what :func:`fits_page` says of the text, if the caller has asked already: it reads a megabyte.

    Raises:
        UnreadableError: it is not a list.
    """
    if fits_page(text) if whole is None else whole:
        page = _parsed(text)
        items, metadata = page.get("items") or [], page.get("metadata")
        if not isinstance(items, list) or not isinstance(metadata, dict):
            raise UnreadableError("no list")
        items = [in_shape(item, kind) for item in items if isinstance(item, dict)]
        return Page(items, *_where(metadata.get("resourceVersion"), metadata.get("continue")))
    return _read_single(text, kind)


def fits_page(text: str) -> bool:
    """Whether a page may be parsed whole; otherwise its objects must be requested one by one."""
    return len(text) <= MAX_PAGE_BYTES and depth(text) <= MAX_DEPTH


class PageSize:
    """How many objects of a list to request at a time, when objects may be of any size.

    A page that cannot be parsed whole wastes a request and a megabyte. So after such a page, objects are requested one
    by one until some in a row were small: two after the first such page, twice as many after each further one. A mix of
    large and small objects therefore costs a few such pages, not one for each object.

    Args:
        most: most objects in a page.
    """

    def __init__(self, most: int) -> None:
        self.limit = self._most = most
        self._small, self._wanted = 0, 1

    @property
    def single(self) -> bool:
        """Whether objects are requested one by one; each is then read, however large it is."""
        return self.limit == 1

    def refused(self) -> None:
        """Record that a page of several objects could not be parsed."""
        self.limit, self._small = 1, 0
        self._wanted = min(2 * self._wanted, MAX_SINGLE)

    def taken(self, length: int, whole: bool) -> None:
        """Record that a page of ``length`` characters was read; ``whole``: whether it could be parsed whole."""
        if not whole or length * self._most > MAX_PAGE_BYTES * self.limit:
            self._small = 0
            return
        self._small += self.limit
        if self._small >= self._wanted:
            self.limit = min(2 * self.limit, self._most)


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        items: objects in their shapes.
        version: resourceVersion of the whole list.
        following: continue token of the next page; empty for the last.
        whole: whether the page was parsed whole, rather than only its metadata extracted.
    """

    items: list[JsonDict]
    version: int
    following: str
    whole: bool = True


def _read_single(text: str, kind: str) -> Page:
    """Read a list of one object that is too large or too deep to be parsed."""
    items: list[JsonDict] = []
    metadata: JsonDict = {}
    for name, at in _members(text, 0):
        if name == "metadata":
            metadata = {key: _scalar(text, place) for key, place in _members(text, at)}
        elif name == "items" and (first := _FIRST.match(text, at)) is not None:
            try:
                items.append(cut(text, kind, first.end()))
            except UnreadableError:
                logger.warning("an object of %s is ignored: it is too large, and its metadata cannot be read", kind)
            # A list of custom resources has its own metadata last. Counting brackets up to it would take a second.
            last = text.rfind(_METADATA, first.end())
            if not metadata and last >= 0:
                at = last + len(_METADATA) - 1
                metadata = {key: _scalar(text, place) for key, place in _members(text, at)}
            break
    return Page(items, *_where(metadata.get("resourceVersion"), metadata.get("continue")), whole=False)


def _where(version: Any, following: Any) -> tuple[int, str]:
    if not (isinstance(version, str) and version.isdecimal()):
        raise UnreadableError("a list without a resourceVersion")
    return int(version), following if isinstance(following, str) else ""


def read_event(line: str) -> JsonDict:
    """One line of a watch: its type, and its object in its shape. An unreadable one becomes a bookmark without version.

    It replaces ``json.loads`` in kopf's stream, where an exception would end the process.
    """
    if fits(line):
        try:
            event = _parsed(line)
            if isinstance(event.get("object"), dict) and isinstance(event.get("type"), str):
                return {"type": event["type"], "object": in_shape(event["object"])}
        except UnreadableError:
            pass
    try:
        if (kind := _EVENT.match(line)) is not None and (found := cut(line, start=kind.end()))["kind"] in SHAPES:
            return {"type": kind[1], "object": found}
    except UnreadableError:
        pass
    logger.warning("an event is ignored: its object is too large, and its metadata cannot be read")
    return {"type": "BOOKMARK", "object": {}}


def cut(text: str, kind: str = "", start: int = 0) -> JsonDict:
    """An object of which only the kind and the scalars and labels of its metadata are parsed.

    Raises:
        UnreadableError: no metadata is found.
    """
    found: JsonDict = {"kind": kind} if kind else {}
    for name, at in _members(text, start):
        if name in ("kind", "apiVersion"):
            found[name] = _scalar(text, at)
        elif name == "metadata":
            found["metadata"] = {key: _picked(text, key, place) for key, place in _members(text, at) if key in _PICKED}
        if len(found) == 3:
            break
    if not (found.get("kind") and isinstance(found.get("metadata", {}).get("uid"), str)):
        raise UnreadableError("an object without metadata")
    return in_shape({**found, UNREAD: CUT})


def _picked(text: str, key: str, at: int) -> Any:
    if key != "labels":
        return _scalar(text, at)
    return {name: _scalar(text, place) for name, place in _members(text, at)}


def _members(text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Keys of the JSON object that begins at ``start``, each with the position of its value; stops at invalid JSON."""
    opened = _OPEN.match(text, start)
    while opened is not None and (key := _KEY.match(text, opened.end())) is not None:
        yield _unquoted(key[1]), key.end()
        opened = _COMMA.match(text, _skipped(text, key.end()))


def _skipped(text: str, at: int) -> int:
    """Position after the value that begins at ``at``."""
    if text[at : at + 1] not in ("{", "[", '"'):
        bare = _BARE.match(text, at)
        return bare.end() if bare else len(text)
    try:
        # Parsed and discarded: the C parser is faster than counting brackets here.
        return _DECODER.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        pass
    level = 0
    for token in _TOKEN.finditer(text, at):
        level += _STEP.get(token[0], 0)
        if level == 0:
            return token.end()
    return len(text)


def _scalar(text: str, at: int) -> Any:
    """A string or a number; None for anything else."""
    if text[at : at + 1] == '"':
        string = _STRING.match(text, at)
        return _unquoted(string[0]) if string is not None else None
    number = _INTEGER.match(text, at)
    return int(number[0]) if number is not None else None


def _unquoted(quoted: str) -> Any:
    try:
        return json.loads(quoted) if len(quoted) < 2000 else ""
    except ValueError:
        return ""


def _integer(digits: str) -> int | None:
    """The integer; None for one of thousands of digits, which Python refuses to make and no field needs."""
    return int(digits) if len(digits) <= 400 else None


def _parsed(text: str) -> JsonDict:
    try:
        body = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as problem:
        raise UnreadableError(str(problem)[:200]) from problem
    if not isinstance(body, dict):
        raise UnreadableError("no JSON object")
    return body
