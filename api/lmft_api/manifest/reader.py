"""Reads manifests by the rules of the YAML parser that kubectl uses, so that both see the same values.

Go's parser takes ``2e-5`` for a number and ``yes`` for a boolean, and writes ``8.0`` as ``8``; PyYAML alone differs in
the first and the last. Timestamps stay text in both. Only one rule is stricter here: a duplicate key is an error, where
kubectl silently takes the last.
"""

import math
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from lmft_api import GROUP, KIND
from lmft_api.manifest.positions import item, line_of
from lmft_api.manifest.validation import Problem, document_problems

STDIN = Path("-")
"""Stands for standard input."""
MAX_FILE_BYTES = 3 << 20
"""Largest manifest: the API server accepts no larger request."""
_MOST_NODES = 100_000
_MOST_DIGITS = 300


PLAIN_SCALARS = tuple(
    (f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)
    for tag, pattern, first in (
        (
            "bool",
            r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
            "yYnNtTfFoO",
        ),
        ("int", r"^[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", "-+0123456789"),
        ("float", r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
        ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
        ("null", r"^(?:~|null|Null|NULL|)$", ("~", "n", "N", "")),
        ("merge", r"^<<$", "<"),
    )
)
"""Go's rules for scalars without quotes: tag, pattern of the whole, characters that it begins with."""


@dataclass(frozen=True)
class Document:
    """One document of a manifest file, or an item of a list: its position from 1, and its content or problems."""

    number: int
    content: Any
    problems: tuple[Problem, ...] = ()
    node: yaml.Node | None = field(default=None, repr=False, compare=False)

    def line(self, path: str) -> int | None:
        """The line of the file in which a field stands, from 1; None if the document could not be read."""
        return line_of(self.node, path)


class _GoLoader(yaml.SafeLoader):
    """PyYAML's safe loader with Go's rules for plain scalars."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own protocol

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._being_composed: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, mark = getattr(event, "anchor", None), event.start_mark
        if isinstance(event, yaml.AliasEvent) and anchor in self._being_composed:
            raise yaml.composer.ComposerError(None, None, f'the anchor "{anchor}" contains itself', mark)
        self._being_composed.append(anchor)
        try:
            return super().compose_node(parent, index)
        finally:
            self._being_composed.pop()

    def construct_document(self, node: yaml.Node) -> Any:
        if _nodes_in_all(node, {}) > _MOST_NODES:
            raise yaml.constructor.ConstructorError(None, None, "the aliases repeat too much", node.start_mark)
        return super().construct_document(node)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text = str(self.construct_scalar(node))
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise yaml.constructor.ConstructorError(
                None, None, "half of a surrogate pair is not a character", node.start_mark
            )
        return text

    def construct_go_float(self, node: yaml.ScalarNode) -> Any:
        text = self.construct_scalar(node)
        if text.lower().endswith((".inf", ".nan")):
            raise yaml.constructor.ConstructorError(None, None, f"{text} cannot be written as JSON", node.start_mark)
        value = float(text.replace("_", ""))
        if math.isinf(value):
            return text  # Go leaves a number that is too large as text.
        # Go writes a float without a fraction as an integer when it converts YAML to JSON.
        return int(value) if value.is_integer() and abs(value) < 1e21 else value

    def construct_go_int(self, node: yaml.ScalarNode) -> int | float | str:
        text = self.construct_scalar(node).replace("_", "").lower()
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("+-")
        if len(digits) > _MOST_DIGITS:
            return str(node.value)
        base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if len(digits) > 1 and digits[0] == "0" else 10)
        value = sign * int(digits[2:] if digits[:2] in ("0x", "0b", "0o") else digits, base)
        if -(2**63) <= value < 2**64:
            return value
        # An integer of more than 64 bits is a float in Go, or text when it is not decimal.
        return float(value) if base == 10 else str(node.value)

    def construct_go_bool(self, node: yaml.ScalarNode) -> bool:
        return self.construct_scalar(node).lower() in ("y", "yes", "true", "on")

    def construct_other(self, node: yaml.Node) -> Any:
        kind = node.tag.rpartition(":")[2]
        problem = f"!!{kind} has no counterpart in JSON; write text, a number, a list or an object"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key "{key_node.value}" is given twice', key_node.start_mark
                    )
                if key_node.tag == "tag:yaml.org,2002:null":
                    raise yaml.constructor.ConstructorError(None, None, "a key must not be null", key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in PLAIN_SCALARS:
    _GoLoader.add_implicit_resolver(_tag, _pattern, list(_first))
_GoLoader.add_constructor("tag:yaml.org,2002:str", _GoLoader.construct_text)
_GoLoader.add_constructor("tag:yaml.org,2002:float", _GoLoader.construct_go_float)
_GoLoader.add_constructor("tag:yaml.org,2002:int", _GoLoader.construct_go_int)
_GoLoader.add_constructor("tag:yaml.org,2002:bool", _GoLoader.construct_go_bool)
for _tag in ("binary", "omap", "pairs", "set", "timestamp"):
    _GoLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _GoLoader.construct_other)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file without empty ones; of a list, as ``kubectl get -o yaml`` writes it, its items.

    A file that cannot be read or is not YAML is returned as one document that has only problems.
    """
    try:
        with standard_input() if path == STDIN else path.open("rb") as source:
            raw = source.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            yield Document(
                1, None, (Problem("", f"is larger than {MAX_FILE_BYTES >> 20} MiB, more than a manifest may have"),)
            )
            return
        text = raw.decode()
    except OSError as error:
        yield Document(1, None, (Problem("", f"cannot be read: {error.strerror}"),))
        return
    except UnicodeDecodeError as error:
        yield Document(1, None, (Problem("", f"is not UTF-8 text (byte {error.start})"),))
        return
    yield from read_text(text)


def read_text(text: str) -> Iterator[Document]:
    """The documents of a text, as :func:`read_documents` reads those of a file."""
    number = 0
    try:
        for node, content in _loaded(text):
            number += 1
            yield from _items(number, node, content)
    except yaml.YAMLError as error:
        yield Document(number + 1, None, (Problem("", _explain(error)),))
    except RecursionError:
        yield Document(number + 1, None, (Problem("", "is nested too deeply"),))
    except ValueError as error:
        yield Document(number + 1, None, (Problem("", f"is not a usable YAML document: {error}"),))


def is_foreign(content: Any) -> bool:
    """Whether a document is of another kind, such as a Secret beside the run."""
    if not isinstance(content, dict):
        return False
    group, kind = str(content.get("apiVersion") or "").partition("/")[0], content.get("kind")
    return bool(group and kind) and group != GROUP and str(kind).lower() != KIND.lower()


def problems_of(document: Document) -> list[Problem]:
    """Why a document cannot be read, or what is invalid in it, and in which lines, from top to bottom."""
    found = document_problems(document.content) if not document.problems else document.problems
    located = [replace(problem, line=document.line(problem.path)) for problem in found]
    return sorted(located, key=lambda problem: problem.line or 0)


def standard_input() -> BinaryIO:
    """Standard input from its start, however often it is read, and by a process that replaces this one too.

    Its first bytes are kept in a file without a name, which takes its place.
    """
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError:
        with tempfile.TemporaryFile() as kept:
            left = MAX_FILE_BYTES + 1
            while left > 0 and (part := os.read(0, min(left, 1 << 16))):
                kept.write(part)
                left -= len(part)
            kept.seek(0)
            os.dup2(kept.fileno(), 0)
    return open(0, "rb", closefd=False)


def _loaded(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    """Each document as nodes, which know their lines, and as plain data."""
    loader = _GoLoader(text)
    try:
        while loader.check_node() and (node := loader.get_node()) is not None:
            yield node, loader.construct_document(node)
    finally:
        loader.dispose()


def _items(number: int, node: yaml.Node, content: Any) -> Iterator[Document]:
    if (
        isinstance(content, dict)
        and str(content.get("kind")).endswith("List")
        and isinstance(content.get("items"), list)
    ):
        yield from (Document(number, entry, node=item(node, at)) for at, entry in enumerate(content["items"]))
    elif content is not None:
        yield Document(number, content, node=node)


def read_yaml(text: str) -> Any:
    """Parse one document by the same rules; used for settings files.

    Raises:
        ValueError: the text is not YAML; the message says where.
    """
    try:
        return yaml.load(text, Loader=_GoLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(_explain(error)) from error


@dataclass(frozen=True)
class Scalar:
    """A value of a command line that is neither list nor object: as YAML reads it, and its letters."""

    value: Any
    text: str


def read_values(text: str) -> list[Any]:
    """YAML values between commas, by the same rules: lists and objects as such, all others as :class:`Scalar`.

    Raises:
        ValueError: the text is not YAML.
    """
    loader = _GoLoader(f"[{text}\n]")
    try:
        root: Any = loader.get_single_node()
        values = loader.construct_document(root) if isinstance(root, yaml.SequenceNode) else []
    except yaml.YAMLError as error:
        raise ValueError(f'"{text}" is not a list of YAML values') from error
    finally:
        loader.dispose()
    return [
        Scalar(value, node.value) if isinstance(node, yaml.ScalarNode) else value
        for node, value in zip(root.value, values, strict=True)
    ]


def _explain(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"is not valid YAML: {error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    if isinstance(error, yaml.reader.ReaderError):
        return f"is not valid YAML: the character #x{error.character:04x} is not allowed (position {error.position})"
    return f"is not valid YAML: {error}"


def _nodes_in_all(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes a document has when all aliases are expanded."""
    if id(node) not in known:
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else inner
        known[id(node)] = 1 + sum(_nodes_in_all(part, known) for part in parts)
    return known[id(node)]
