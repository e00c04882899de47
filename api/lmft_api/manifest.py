"""Reading manifests by the rules of the YAML reader that kubectl uses, so that both see the same values.

Go's reader takes ``2e-5`` for a number and ``yes`` for a boolean, and writes ``8.0`` as ``8``; PyYAML by itself
differs in the first and the last. Timestamps stay text in both. Only one thing is stricter here: a key that stands
twice is a mistake, where kubectl silently takes the last.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmft_api.validation import Problem


@dataclass(frozen=True)
class Document:
    """One document of a manifest file: its position from 1, and its content or why it cannot be read."""

    number: int
    content: Any
    problems: tuple[Problem, ...] = ()


class _GoLoader(yaml.SafeLoader):
    """PyYAML's safe loader with Go's idea of plain scalars."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own protocol

    def construct_go_float(self, node: yaml.ScalarNode) -> Any:
        text = self.construct_scalar(node)
        if text.lower().endswith((".inf", ".nan")):
            raise yaml.constructor.ConstructorError(None, None, f"{text} cannot be written as JSON", node.start_mark)
        value = float(text.replace("_", ""))
        if math.isinf(value):
            return text  # Go leaves a number that is too large as text.
        # Go writes a float without a fraction as an integer when it turns YAML into JSON.
        return int(value) if value.is_integer() and abs(value) < 1e21 else value

    def construct_go_int(self, node: yaml.ScalarNode) -> int | float | str:
        text = self.construct_scalar(node).replace("_", "").lower()
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("+-")
        base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if len(digits) > 1 and digits[0] == "0" else 10)
        value = sign * int(digits[2:] if digits[:2] in ("0x", "0b", "0o") else digits, base)
        if -(2**63) <= value < 2**64:
            return value
        # What does not fit into 64 bits is a float to Go, or text when it is not decimal.
        return float(value) if base == 10 else str(node.value)

    def construct_go_bool(self, node: yaml.ScalarNode) -> bool:
        return self.construct_scalar(node).lower() in ("y", "yes", "true", "on")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key "{key_node.value}" stands twice', key_node.start_mark
                    )
                if key_node.tag == "tag:yaml.org,2002:null":
                    raise yaml.constructor.ConstructorError(None, None, "a key must not be null", key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    ("int", r"^[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _GoLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_GoLoader.add_constructor("tag:yaml.org,2002:float", _GoLoader.construct_go_float)
_GoLoader.add_constructor("tag:yaml.org,2002:int", _GoLoader.construct_go_int)
_GoLoader.add_constructor("tag:yaml.org,2002:bool", _GoLoader.construct_go_bool)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file, empty ones left out.

    A file that cannot be read, or is not YAML, comes as one document that has only problems.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        yield Document(1, None, (Problem("", f"cannot be read: {error.strerror}"),))
        return
    except UnicodeDecodeError as error:
        yield Document(1, None, (Problem("", f"is not UTF-8 text (byte {error.start})"),))
        return
    number = 0
    try:
        for content in yaml.load_all(text, Loader=_GoLoader):
            number += 1
            if content is not None:
                yield Document(number, content)
    except yaml.YAMLError as error:
        yield Document(number + 1, None, (Problem("", _explain(error)),))
    except (RecursionError, ValueError) as error:
        yield Document(number + 1, None, (Problem("", f"is not a usable YAML document: {error}"),))


def read_yaml(text: str) -> Any:
    """One document by the same rules, for settings files.

    Raises:
        ValueError: it is not YAML; says where.
    """
    try:
        return yaml.load(text, Loader=_GoLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(_explain(error)) from error


def _explain(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"is not valid YAML: {error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return f"is not valid YAML: {error}"
