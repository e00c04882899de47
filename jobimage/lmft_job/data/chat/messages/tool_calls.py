"""Tools and their calls, in the one form that templates take: arguments as an object, never as text."""

import json
from collections.abc import Mapping
from typing import Any

from lmft_job.data.chat.messages.wrong import BadRowError, kind_of

_CALL = '{"type": "function", "function": {"name": "…", "arguments": {…}}}'


def calls_of(value: Any, where: str) -> list[dict[str, Any]]:
    """The calls of a message.

    Raises:
        BadRowError: they are not calls.
    """
    if not isinstance(value, list):
        raise BadRowError("tool calls", f"{where}: tool_calls is {kind_of(value)}; write a list of {_CALL}")
    return [_call(entry, where) for entry in value]


def _call(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise BadRowError("tool calls", f"{where}: a tool call is {kind_of(entry)}; write {_CALL}")
    function = entry.get("function")
    function = function if isinstance(function, Mapping) else entry
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadRowError("tool calls", f"{where}: a tool call has no name; write {_CALL}")
    given = function.get("arguments", function.get("parameters"))
    arguments = {} if given is None or given == "" else arguments_of(given, where)
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**call, "id": entry["id"]} if isinstance(entry.get("id"), str) else call


def arguments_of(value: Any, where: str) -> dict[str, Any]:
    """An object, or the object that a text holds as JSON: a template would write such a text with quotes around it.

    Raises:
        BadRowError: neither.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError(
                "tool calls", f"{where}: the arguments of a tool call are text that is not JSON; write an object"
            ) from error
    if not isinstance(value, Mapping):
        raise BadRowError("tool calls", f"{where}: the arguments of a tool call are {kind_of(value)}; write an object")
    # Arrow gives every struct all fields of the column; those without a value are not arguments.
    return {str(name): entry for name, entry in value.items() if entry is not None}


def tools_of(value: Any) -> list[Any]:
    """The tools that a conversation may call, from a list or from JSON text; empty if there are none.

    Raises:
        BadRowError: something else.
    """
    if value is None or value in ("", []):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError("tools", "'tools' is text that is not JSON; write a list of functions") from error
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise BadRowError("tools", f"'tools' is {kind_of(value)}; write a list of functions")
    return value
