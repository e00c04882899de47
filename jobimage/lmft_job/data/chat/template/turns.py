"""Where a template writes the assistant's turns: from its generation marks, else by rendering prefixes.

A turn of the assistant is what the template writes after the turn's header, which is where generation begins, up to
and including its end token: tool calls and thinking that is kept are part of it. White space after the end token is
not: generation ends before it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lmft_job.data.chat.messages.conversations import ASSISTANT, Conversation, Message
from lmft_job.data.chat.messages.wrong import BadRowError, quoted
from lmft_job.data.chat.template.rendering import ChatTemplate, Rendered, TemplateRefusedError

Span = tuple[int, int]
_STAND_IN = "\ue000turn\ue001"


@dataclass(frozen=True)
class WrittenConversation:
    """A conversation as text.

    Attributes:
        text: the whole of it.
        answers: start and end of each turn of the assistant, in characters, in order.
    """

    text: str
    answers: tuple[Span, ...]


def write(template: ChatTemplate, conversation: Conversation, specials: Sequence[str]) -> WrittenConversation:
    """Write a conversation, and find the assistant's turns in it.

    Args:
        template: of the run.
        conversation: as :mod:`lmft_job.data.chat.messages.conversations` makes it.
        specials: the tokenizer's special tokens.

    Raises:
        BadRowError: the template refuses it, or does not write it such that its turns can be told apart.
    """
    messages, tools = _plain(conversation["messages"]), conversation.get("tools")
    _refuse_special(messages, tools, specials)
    try:
        whole = template.render(messages, tools)
    except TemplateRefusedError as error:
        raise BadRowError("refused by the template", f"the chat template refuses it: {error}") from error
    places = [number for number, message in enumerate(messages) if message["role"] == ASSISTANT]
    if len(whole.marked) == len(places):
        found = [_within_marks(template, whole, messages, tools, place, mark)
                 for place, mark in zip(places, whole.marked, strict=True)]  # fmt: skip
    else:
        found = [_by_prefix(template, whole.text, messages, tools, place, specials) for place in places]
    spans = [_to_the_end(whole.text, span, specials) for span in found]
    for place, (start, end), after in zip(places, spans, [*spans[1:], (len(whole.text), 0)], strict=True):
        if not start < end <= max(after[0], end) or after[0] < end:
            raise _unclear(place)
        _require_calls(messages[place], whole.text[start:end], place)
    return WrittenConversation(whole.text, tuple(spans))


def _plain(messages: Sequence[Message]) -> list[Message]:
    """Without what is ours and not the template's."""
    return [{name: value for name, value in message.items() if name != "train"} for message in messages]


def special_within(value: Any, specials: Sequence[str]) -> str | None:
    """A special token within the texts of JSON values, as which the tokenizer would read it.

    It would end a turn or begin another. Whether the template names it does not matter: it may put it together.
    """
    if isinstance(value, str):
        return next((token for token in specials if token in value), None)
    if isinstance(value, Mapping):
        value = (*value, *value.values())
    if isinstance(value, Sequence):
        return next((found for one in value if (found := special_within(one, specials)) is not None), None)
    return None


def _refuse_special(messages: Sequence[Message], tools: Any, specials: Sequence[str]) -> None:
    parts = {f"message {number}": message for number, message in enumerate(messages, 1)} | {"the list of tools": tools}
    for where, part in parts.items():
        if (inside := special_within(part, specials)) is not None:
            raise BadRowError(
                "special token in the text",
                f"{where} contains {quoted(inside)}, which the tokenizer reads as a special token; remove it, write it "
                "otherwise, or set spec.dataset.badRows to Drop",
            )


def _within_marks(
    template: ChatTemplate, whole: Rendered, messages: list[Message], tools: Any, place: int, mark: Span
) -> Span:
    """A generation block, less the header and with the end token, wherever its author put these."""
    start, end = mark
    before, upto = _prompt(template, messages[:place], tools), _try(template, messages[: place + 1], tools)
    if before is not None and whole.text.startswith(before) and start < len(before) <= end:
        start = len(before)
    if upto is not None and whole.text.startswith(upto):
        end = max(end, len(upto))
    return start, end


def _by_prefix(
    template: ChatTemplate, text: str, messages: list[Message], tools: Any, place: int, specials: Sequence[str]
) -> Span:
    """The turn between what is written up to where it is generated, and what is written with it."""
    before = _prompt(template, messages[:place], tools)
    upto = _try(template, messages[: place + 1], tools)
    if place + 1 == len(messages):
        upto = text
    if before is not None and upto is not None and text.startswith(before) and text.startswith(upto):
        return len(before), len(upto)
    # Later turns change how this one, or one before it, is written: thinking that is removed, a prompt that opens it.
    return _by_stand_in(template, text, messages, tools, place, specials)


def _by_stand_in(
    template: ChatTemplate, text: str, messages: list[Message], tools: Any, place: int, specials: Sequence[str]
) -> Span:
    """The turn where another text in its place changes what is written, from the header before it on."""
    role = {"role": ASSISTANT, "content": _STAND_IN}
    other = _try(template, [*messages[:place], role, *messages[place + 1 :]], tools)
    if other is None or other.count(_STAND_IN) != 1:
        raise _unclear(place)
    at = other.index(_STAND_IN)
    rest = other[at + len(_STAND_IN) :]
    following = _try(template, [*messages[:place], role], tools)
    header = _header(template, messages[:place], tools)
    start = other.rfind(header, 0, at) if header else -1
    if start < 0:
        lead = _lead(_prompt(template, messages[:place], tools), following)
        start = at - len(lead) if other.endswith(lead, 0, at) else at
    else:
        start += len(header)
    if text[:start] != other[:start] or not text.endswith(rest) or len(text) - len(rest) < start:
        raise _unclear(place)
    tail = following.partition(_STAND_IN)[2] if following else ""
    return start, len(text) - len(rest) + _tail(tail, rest, specials)


def _lead(prompt: str | None, following: str | None) -> str:
    """What an answer begins with before its content, such as a space, where the template writes no header."""
    if prompt is None or following is None or not following.startswith(prompt):
        return ""
    return following[len(prompt) :].partition(_STAND_IN)[0]


def _header(template: ChatTemplate, messages: list[Message], tools: Any) -> str:
    """What the template writes to begin an answer; empty if it is nothing, or unknown."""
    before, without = _prompt(template, messages, tools), _try(template, messages, tools)
    if before is None or without is None or not before.startswith(without):
        return ""
    header = before[len(without) :]
    # A prompt may open the thinking too, which the turn itself is written without.
    return header.partition("<think>")[0]


def _prompt(template: ChatTemplate, messages: list[Message], tools: Any) -> str | None:
    return _try(template, messages, tools, prompt=True)


def _try(template: ChatTemplate, messages: list[Message], tools: Any, *, prompt: bool = False) -> str | None:
    if not messages:
        return None
    try:
        return template.render(messages, tools, prompt=prompt).text
    except TemplateRefusedError:
        return None


def _to_the_end(text: str, span: Span, specials: Sequence[str]) -> Span:
    """Up to and including the end token; white space after it, or the conversation's own end, is no part of it."""
    start, end = span
    found = _closing(specials).search(text, start, end)
    return (start, found.end(1)) if found else span


@cache
def _token(specials: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, specials)) or "(?!)"


def _closing(specials: Sequence[str]) -> re.Pattern[str]:
    """Special tokens and white space up to the end; the first token is the turn's end."""
    token = _token(tuple(specials))
    return re.compile(rf"({token})(?:\s|{token})*\Z")


def _tail(tail: str, rest: str, specials: Sequence[str]) -> int:
    """How much of what follows a turn belongs to it: what follows it at a conversation's end too, up to a token."""
    ended = re.match(rf"\s*(?:{_token(tuple(specials))})", tail)
    if ended and rest.startswith(ended[0]):
        return ended.end()
    for number, (left, right) in enumerate(zip(tail, rest, strict=False)):
        if left != right:
            return number
    return min(len(tail), len(rest))


def _require_calls(message: Message, written: str, place: int) -> None:
    for call in message.get("tool_calls") or ():
        if call["function"]["name"] not in written:
            raise BadRowError(
                "tool calls are not written",
                f"message {place + 1}: the chat template does not write its tool calls; choose one that does, as in "
                "chatTemplate: {name: ChatML}",
            )


def _unclear(place: int) -> BadRowError:
    return BadRowError(
        "turns cannot be told apart",
        f"message {place + 1}: the chat template writes it such that where it begins and ends cannot be told; put "
        "{% generation %} and {% endgeneration %} around it in spec.dataset.chatTemplate.text",
    )
