"""Conversations as people write them, in one form: OpenAI's messages, ShareGPT's, or prompts with completions.

Whatever is wrong with a row is a :class:`BadRowError`, with its kind, by which dropped rows are counted, and what to
write instead.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmft_job.data.chat.messages.tool_calls import arguments_of, calls_of, tools_of
from lmft_job.data.chat.messages.wrong import MISSING, BadRowError, kind_of, quoted
from lmft_job.data.text import fields

Message = dict[str, Any]
Conversation = dict[str, Any]
"""``messages``, each with role and content, and ``tools`` where there are any: JSON values only."""

ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", ASSISTANT, "tool")
_LEGACY = {"function": "tool"}
_SHAREGPT = {
    "human": "user", "user": "user", "gpt": ASSISTANT, "assistant": ASSISTANT, "chatgpt": ASSISTANT,
    "bing": ASSISTANT, "bard": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT, "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
_MEANT = {
    **{name: role for name, role in _SHAREGPT.items() if name not in ROLES}, "ai": ASSISTANT, "agent": ASSISTANT,
    "question": "user", "instruction": "user", "prompt": "user", "customer": "user", "answer": ASSISTANT,
    "response": ASSISTANT, "completion": ASSISTANT, "assistent": ASSISTANT, "system_prompt": "system",
}  # fmt: skip
_REASONING = ("reasoning_content", "thinking", "reasoning")
_EXAMPLE = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def from_messages(value: Any, tools: Any, field: str) -> Conversation:
    """A conversation from a list of messages.

    Args:
        value: what the row holds.
        tools: the row's ``tools``; None if it has none.
        field: for messages.

    Raises:
        BadRowError: it is not a conversation that can be trained on.
    """
    return _conversation(_messages(value, field), tools)


def from_pair(prompt: Any, completion: Any, tools: Any, names: tuple[str, str]) -> Conversation:
    """A conversation from a prompt and its completion, each text or a list of messages.

    Raises:
        BadRowError: it is not a conversation that can be trained on.
    """
    asked = _side(prompt, names[0], "user")
    answered = _side(completion, names[1], ASSISTANT)
    if not any(message["role"] == ASSISTANT for message in answered):
        raise BadRowError("no answer", f"{names[1]!r} has no message of the assistant; there is nothing to train on")
    return _conversation([*asked, *answered], tools)


def _side(value: Any, name: str, role: str) -> list[Message]:
    if fields.is_missing(value):
        raise BadRowError(MISSING, f"{name!r} is empty; write text, or a list of messages")
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return _messages(value, name)


def _conversation(messages: list[Message], tools: Any) -> Conversation:
    if not any(message["role"] == ASSISTANT for message in messages):
        raise BadRowError(
            "no answer", "has no message of the assistant, so there is nothing to train on; add the answer"
        )
    given = tools_of(tools)
    return {"messages": messages, **({"tools": given} if given else {})}


def _messages(value: Any, field: str) -> list[Message]:
    if value is None:
        raise BadRowError(MISSING, f"{field!r} is missing or null; write {_EXAMPLE}")
    if isinstance(value, str):
        written = fields.is_written_conversation(value)
        what = "a conversation within quotes" if written else "text"
        how = f"unpack it: jq -c '.{field} |= fromjson' FILE > NEW" if written else f"write {_EXAMPLE}"
        raise BadRowError("text instead of a list", f"{field!r} is {what}, not a list of messages; {how}")
    if isinstance(value, Mapping):
        raise BadRowError("not a list", f"{field!r} is {_what_object(value)}, not a list of messages; {_how(value)}")
    if not isinstance(value, Sequence):
        raise BadRowError("not a list", f"{field!r} is {kind_of(value)}, not a list of messages; write {_EXAMPLE}")
    if not value:
        raise BadRowError("empty list", f"{field!r} is an empty list; write {_EXAMPLE}, or remove the row")
    if len({_is_sharegpt(entry) for entry in value if isinstance(entry, Mapping)}) > 1:
        raise BadRowError(
            "mixed shapes", f"{field!r} mixes messages of {{role, content}} and {{from, value}}; write all in one way"
        )
    return [_message(entry, number) for number, entry in enumerate(value, 1)]


def _what_object(value: Mapping[str, Any]) -> str:
    return "one message" if _is_sharegpt(value) or "role" in value else "an object"


def _how(value: Mapping[str, Any]) -> str:
    inner = [name for name, entry in value.items() if isinstance(entry, list)]
    if inner and "role" not in value:
        return f"name its list in spec.dataset.messagesField, as in messages.{inner[0]}"
    return f"write {_EXAMPLE}"


def _is_sharegpt(value: Mapping[str, Any]) -> bool:
    return "from" in value and "role" not in value


def _message(value: Any, number: int) -> Message:
    where = f"message {number}"
    if isinstance(value, list):
        raise BadRowError("nested lists", f"{where} is a list; write the messages in one list, without inner lists")
    if isinstance(value, str):
        raise BadRowError(
            "text instead of messages", f'{where} is text, without a role; write {{"role": "user", "content": "…"}}'
        )
    if not isinstance(value, Mapping):
        raise BadRowError("not a message", f"{where} is {kind_of(value)}; write {{role, content}}")
    given = {name: entry for name, entry in value.items() if entry is not None}
    return _of_sharegpt(given, where) if _is_sharegpt(value) else _of_openai(given, where)


def _of_sharegpt(given: Mapping[str, Any], where: str) -> Message:
    speaker = given.get("from")
    if speaker == "function_call":
        text = _content(given.get("value"), where, "value")
        return {"role": ASSISTANT, "content": "", "tool_calls": calls_of([arguments_of(text, where)], where)}
    role = _SHAREGPT.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise BadRowError(
            "unknown role",
            f"{where} is from {quoted(speaker)}; write human, gpt, system or tool" + _meant(speaker, "human", "gpt"),
        )
    if "value" not in given:
        raise BadRowError("missing content", f"{where} has no value; write what is said")
    return {"role": role, "content": _content(given["value"], where, "value"), **_flags(given, role, where)}


def _of_openai(given: Mapping[str, Any], where: str) -> Message:
    if "role" not in given:
        raise BadRowError("missing role", f"{where} has no role; write user, assistant, system or tool")
    role = given["role"]
    role = _LEGACY.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise BadRowError(
            "unknown role",
            f"{where} has the role {quoted(role)}; write user, assistant, system or tool" + _meant(role),
        )
    message: Message = {"role": role, "content": ""}
    calls = given.get("tool_calls") or ([given["function_call"]] if given.get("function_call") else None)
    if calls:
        if role != ASSISTANT:
            raise BadRowError("tool calls", f"{where}: tool_calls of the role {role}; only the assistant calls tools")
        message["tool_calls"] = calls_of(calls, where)
    reasoning = next((given[name] for name in _REASONING if name in given), None)
    if "content" in given:
        message["content"] = _content(given["content"], where, "content")
    elif not calls and not (reasoning and role == ASSISTANT):
        raise BadRowError("missing content", f"{where} has no content; write what is said, or tool_calls")
    if reasoning is not None and role == ASSISTANT:
        message["reasoning_content"] = _content(reasoning, where, "reasoning_content")
    for name in ("name", "tool_call_id"):
        if isinstance(given.get(name), str):
            message[name] = given[name]
    return {**message, **_flags(given, role, where)}


def _flags(given: Mapping[str, Any], role: str, where: str) -> Message:
    """Whether to train on the message, where it says so: ``train``, or OpenAI's ``weight`` of 0 or 1."""
    if "train" not in given and "weight" not in given:
        return {}
    flag = given.get("train", given.get("weight"))
    if flag not in (True, False):
        raise BadRowError("train", f"{where}: train is {quoted(flag)}; write true or false")
    if role != ASSISTANT:
        if not flag:
            return {}
        raise BadRowError(
            "train", f"{where}: train is true on the role {role}; answers are trained on, so remove it, or set "
            "spec.dataset.trainOn to Everything",
        )  # fmt: skip
    return {"train": bool(flag)}


def _meant(role: Any, *others: str) -> str:
    known = _MEANT.get(str(role).strip().casefold()) or (
        str(role).strip().casefold() if str(role).strip().casefold() in ROLES else None
    )
    if known is None:
        return ""
    if others:
        known = dict(zip(("user", ASSISTANT), others, strict=True)).get(known, known)
    return f"; this one is probably {known}"


def _content(value: Any, where: str, name: str) -> str:
    """Text, or the text of several parts, between which a line ends (as vLLM joins them)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_part(part, where, name) for part in value)
    raise BadRowError(
        "content is not text", f"{where}: {name} is {kind_of(value)}; write text in quotes, or a list of text parts"
    )


def _part(part: Any, where: str, name: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text") or (kind is None and "text" in part):
            if isinstance(part.get("text"), str):
                return str(part["text"])
            raise BadRowError("content is not text", f"{where}: {name} has a text part without text")
        if isinstance(kind, str):
            raise BadRowError(
                "images and other media",
                f"{where}: {name} has a part of type {quoted(kind)}; only text is trained on: remove the part or the "
                "row, or set spec.dataset.badRows to Drop",
            )
    if isinstance(part, list):
        raise BadRowError("nested lists", f"{where}: {name} is a list of lists; write text, or a list of text parts")
    raise BadRowError(
        "content is not text",
        f'{where}: {name} has a part that is {kind_of(part)}; write {{"type": "text", "text": …}}',
    )


def words_of(conversation: Conversation) -> Iterator[str]:
    """What is said, for a tokenizer to be trained on."""
    for message in conversation["messages"]:
        if message["content"]:
            yield message["content"]


def dumped(conversation: Conversation) -> str:
    """As it is kept on disk; the same conversation gives the same text."""
    return json.dumps(conversation, ensure_ascii=False, separators=(",", ":"))
