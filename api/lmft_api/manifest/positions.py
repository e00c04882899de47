"""Where in a file a field stands: the lines of a YAML document by the paths that problems have."""

import re
from typing import Any

import yaml

_INDEX = re.compile(r"\[(\d+)\]")


def line_of(root: yaml.Node | None, path: str) -> int | None:
    """The line of a field, from 1; that of its innermost parent that exists where the field itself is missing.

    Args:
        root: a document, or an item of a list in it.
        path: ``spec.podTemplate.env[2].name``; a key may contain dots.
    """
    if root is None:
        return None
    node, line, rest = root, root.start_mark.line + 1, path
    while rest:
        found = _entry(node, rest)
        if found is None:
            break
        node, line, rest = found
        rest = rest.removeprefix(".")
    return line


def item(root: yaml.Node | None, index: int) -> yaml.Node | None:
    """The node of an entry of a list's ``items``."""
    found = _entry(root, "items") if root is not None else None
    entries: Any = found[0].value if found else None
    return entries[index] if isinstance(entries, list) and index < len(entries) else None


def _entry(node: yaml.Node, path: str) -> tuple[yaml.Node, int, str] | None:
    """What the first part of a path leads to: the node, the line of its key, and the rest of the path."""
    if isinstance(node, yaml.SequenceNode):
        index = _INDEX.match(path)
        if index is None or int(index[1]) >= len(node.value):
            return None
        inner = node.value[int(index[1])]
        return inner, inner.start_mark.line + 1, path[index.end() :]
    if not isinstance(node, yaml.MappingNode):
        return None
    fitting = [
        (key, value)
        for key, value in node.value
        if isinstance(key, yaml.ScalarNode)
        and path.startswith(key.value)
        and (path == key.value or path[len(key.value)] in ".[")
    ]
    if not fitting:
        return None
    key, value = max(fitting, key=lambda pair: len(pair[0].value))
    return value, key.start_mark.line + 1, path[len(key.value) :]
