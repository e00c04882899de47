"""Which tokens are trained on: what a template writes for an answer after its header, and its end token."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.chats import ASSISTANT, DATED, MARKED, MISTRAL, PHI, QWEN3, USER, chat, drawn_chat, tokenizer_with, turn
from support.data_helpers import json_data, settings_of

from lmft_api.spec import TrainOn
from lmft_api.tasks import Task
from lmft_job.data.chat import asking
from lmft_job.data.chat.masks import MarkedRow, mark
from lmft_job.data.chat.messages.conversations import from_messages
from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template.settled import special_tokens, template_of
from lmft_job.data.chat.template.turns import write
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers

NAMES = ["ChatML", "Llama3", "Gemma", "Mistral", "Zephyr"]
DAY = "2026-03-04"


def marked(
    tokenizer: Any, messages: Sequence[Any], train_on: TrainOn = TrainOn.ANSWERS, tools: Any = None
) -> MarkedRow:
    conversation = from_messages(list(messages), tools, "messages")
    written = write(template_of(tokenizer, DAY), conversation, special_tokens(tokenizer))
    row = mark(tokenizer, [written], [conversation["messages"]], train_on)[0]
    if isinstance(row, BadRowError):
        raise row
    return row


def trained(tokenizer: Any, messages: Sequence[Any], train_on: TrainOn = TrainOn.ANSWERS, **more: Any) -> list[str]:
    """The texts of the runs of trained tokens."""
    row = marked(tokenizer, messages, train_on, **more)
    edges = np.flatnonzero(np.diff([0, *row.trained.astype(int), 0])).reshape(-1, 2)
    return [tokenizer.decode(row.ids[start:end]) for start, end in edges.tolist()]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("ChatML", ["One.<|im_end|>", "Two.<|im_end|>"]),
        ("Llama3", ["One.<|eot_id|>", "Two.<|eot_id|>"]),
        ("Gemma", ["One.<end_of_turn>", "Two.<end_of_turn>"]),
        ("Mistral", [" One.<|endoftext|>", " Two.<|endoftext|>"]),
        ("Zephyr", ["One.<|endoftext|>", "Two.<|endoftext|>"]),
    ],
)
def test_answers_are_trained_on_with_their_end_tokens(name: str, answers: list[str]) -> None:
    # the end token is that of padding too, in some of these
    assert trained(tokenizer_with(None, name=name), chat("a", "One.", "b", "Two.", system="Be brief.")) == answers


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_what_transformers_writes(name: str) -> None:
    tokenizer = tokenizer_with(None, name=name)
    draw = random.Random(name)
    for _ in range(50):
        messages = drawn_chat(draw)

        ids = marked(tokenizer, messages).ids

        assert ids.tolist() == tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize("template", [QWEN3, DATED, MARKED, PHI], ids=["rewriting", "dated", "marked", "ended"])
def test_every_trained_span_begins_where_generation_does_and_ends_with_its_token(template: str) -> None:
    tokenizer = tokenizer_with(template)
    ends = {PHI: "<|end|>", DATED: "<|eot_id|>"}
    draw = random.Random(1)
    for _ in range(100):
        messages = drawn_chat(draw, thinking=template is QWEN3)
        spans = trained(tokenizer, messages)

        assert len(spans) == sum(message["role"] == ASSISTANT for message in messages)
        for message, span in zip([m for m in messages if m["role"] == ASSISTANT], spans, strict=True):
            said = message["content"].strip() if template is DATED else message["content"]
            assert span.endswith(said + ends.get(template, "<|im_end|>"))
            assert span.removesuffix(said + ends.get(template, "<|im_end|>")).startswith(("<think>", ""))


def test_an_answer_begins_with_its_space_though_a_later_question_rewrites_what_is_before_it() -> None:
    messages = chat("a", "One", "b", "Two", system="Be brief.")
    tokenizer = tokenizer_with(MISTRAL)

    assert trained(tokenizer, messages) == [f" One{tokenizer.eos_token}", f" Two{tokenizer.eos_token}"]
    text = tokenizer.decode(marked(tokenizer, messages).ids)
    assert text.endswith(f"[INST] Be brief. b[/INST] Two{tokenizer.eos_token}")


def test_thinking_is_trained_on_where_the_template_keeps_it() -> None:
    messages = [turn(USER, "a"), turn(ASSISTANT, "One.", reasoning_content="Why?"), turn(USER, "b"),
                turn(ASSISTANT, "Two.", reasoning_content="So?")]  # fmt: skip

    assert trained(tokenizer_with(QWEN3), messages) == [
        "One.<|im_end|>",
        "<think>\nSo?\n</think>\n\nTwo.<|im_end|>",
    ]


def test_thinking_between_tool_calls_that_a_later_question_removes_is_no_obstacle() -> None:
    call = {"function": {"name": "look", "arguments": '{"at": "river"}'}}
    messages = [turn(USER, "a"), turn(ASSISTANT, "", tool_calls=[call], reasoning_content="Hm."),
                turn("tool", "wet"), turn(ASSISTANT, "Wet.", reasoning_content="Aha."), turn(USER, "b"),
                turn(ASSISTANT, "Two.")]  # fmt: skip

    assert trained(tokenizer_with(QWEN3), messages) == [
        '\n<tool_call>\n{"name": "look", "arguments": {"at": "river"}}\n</tool_call><|im_end|>',
        "Wet.<|im_end|>",
        "<think>\n\n</think>\n\nTwo.<|im_end|>",
    ]


@pytest.mark.parametrize("content", ["", None])
def test_tool_calls_are_trained_on_and_a_null_is_not_written(content: str | None) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "river"}'}}
    messages = [turn(USER, "a"), {"role": ASSISTANT, "content": content, "tool_calls": [call]},
                {"role": "tool", "content": "wet", "tool_call_id": "1"}, turn(ASSISTANT, "Wet.")]  # fmt: skip

    assert trained(tokenizer_with(None, name="ChatML"), messages) == [
        '<tool_call>\n{"name": "look", "arguments": {"at": "river"}}\n</tool_call><|im_end|>', "Wet.<|im_end|>",
    ]  # fmt: skip


def test_tool_calls_that_a_template_leaves_out_are_not_lost_in_silence() -> None:
    call = {"function": {"name": "look", "arguments": {}}}

    with pytest.raises(BadRowError, match="does not write its tool calls"):
        marked(tokenizer_with(DATED), [turn(USER, "a"), turn(ASSISTANT, "b", tool_calls=[call])])


def test_the_date_is_the_runs_first_day() -> None:
    tokenizer = tokenizer_with(DATED)

    text = tokenizer.decode(marked(tokenizer, chat("a", "b")).ids)

    assert "Today Date: 04 Mar 2026<|eot_id|>" in text


def test_there_is_one_token_of_the_beginning() -> None:
    # given a tokenizer that begins every text with a token, and a template that writes it too
    from tokenizers import processors

    tokenizer = tokenizer_with(DATED)
    core = tokenizer.backend_tokenizer
    begin = ("<|endoftext|>", core.token_to_id("<|endoftext|>"))
    core.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[begin])

    assert marked(tokenizer, chat("a", "b")).ids.tolist().count(begin[1]) == 1


def test_consecutive_turns_of_a_role_are_told_apart() -> None:
    messages = [turn(USER, "a"), turn(USER, "b"), turn(ASSISTANT, "One."), turn(ASSISTANT, "Two.")]

    assert trained(tokenizer_with(None, name="ChatML"), messages) == ["One.<|im_end|>", "Two.<|im_end|>"]
    with pytest.raises(BadRowError, match="refuses it: turns of user and assistant must alternate"):
        marked(tokenizer_with(None, name="Gemma"), messages)


@pytest.mark.parametrize("vocabulary", [270, 300, 400])
@pytest.mark.parametrize(
    "header", ["{{ message.role + ': ' }}", "{{ message.role + ':\n' }}", "{{ message.role + ' ' }}"]
)
def test_a_token_that_reaches_over_the_header_is_split_there(header: str, vocabulary: int) -> None:
    # given headers of ordinary text, whose white space the tokenizer joins with the answer
    template = (
        "{%- for message in messages %}" + header.replace("{{", "{{-") + "{{- message.content + eos_token + '\\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}"
        + header.replace("message.role", "'assistant'").replace("{{", "{{-")
        + "{%- endif %}"
    )  # fmt: skip
    tokenizer = tokenizer_with(template, vocabulary=vocabulary)
    draw = random.Random(2)
    for _ in range(60):
        messages = drawn_chat(draw)
        row = marked(tokenizer, messages)
        place = next(number for number, message in enumerate(messages) if message["role"] == ASSISTANT)
        asked = tokenizer.apply_chat_template(messages[:place], add_generation_prompt=True, return_dict=False)

        # then the row begins with what the model is asked, token by token
        assert row.ids[: len(asked)].tolist() == asked
        assert not row.trained[: len(asked)].any()
        assert row.trained[len(asked)]
        answers = [message["content"] + "<|endoftext|>" for message in messages if message["role"] == ASSISTANT]
        assert trained(tokenizer, messages) == answers


def test_what_is_trained_on_can_be_chosen() -> None:
    tokenizer = tokenizer_with(None, name="ChatML")
    messages = chat("a", "One.", "b", "Two.")

    assert trained(tokenizer, messages, TrainOn.LAST_ANSWER) == ["Two.<|im_end|>"]
    whole = marked(tokenizer, messages, TrainOn.EVERYTHING)
    assert whole.trained[1:].all()
    assert not whole.trained[0]


def test_a_message_may_say_otherwise_for_itself() -> None:
    tokenizer = tokenizer_with(None, name="ChatML")
    messages = [
        turn(USER, "a"),
        turn(ASSISTANT, "One.", train=True),
        turn(USER, "b"),
        turn(ASSISTANT, "Two.", weight=0),
    ]

    assert trained(tokenizer, messages, TrainOn.LAST_ANSWER) == ["One.<|im_end|>"]
    assert trained(tokenizer, messages) == ["One.<|im_end|>"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "One."}],
        [turn(USER, [{"type": "text", "text": "a"}]), turn(ASSISTANT, [{"type": "text", "text": "One."}])],  # type: ignore[arg-type]
        [turn(USER, "a", name="Ann"), turn(ASSISTANT, "One.", id=3, tool_calls=None, refusal=None)],
    ],
    ids=["ShareGPT's", "in parts", "with more"],
)
def test_one_conversation_in_any_form_gives_the_same_row(messages: list[Any]) -> None:
    tokenizer = tokenizer_with(None, name="ChatML")

    assert marked(tokenizer, messages).ids.tolist() == marked(tokenizer, chat("a", "One.")).ids.tolist()


def test_parts_are_lines_and_calls_of_sharegpt_are_calls() -> None:
    tokenizer = tokenizer_with(None, name="ChatML")
    said = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    call = [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "look", "arguments": {}}'}]

    assert trained(tokenizer, [turn(USER, "a"), turn(ASSISTANT, said)]) == ["One.\nTwo.<|im_end|>"]  # type: ignore[arg-type]
    with pytest.raises(BadRowError, match=r"the arguments of a tool call|name"):
        from_messages([*call[:1], {"from": "function_call", "value": "look()"}], None, "messages")
    assert trained(tokenizer, call) == ['<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>']


def test_special_tokens_that_the_tokenizer_lacks_are_added_and_told() -> None:
    dataset = json_data("file:///a.jsonl", messagesField="messages", chatTemplate={"name": "ChatML"})
    plain, said = tokenizers.train(iter([["a b c"]]), 0, Task.CAUSAL_LM), []

    settled = asking.settle(settings_of(dataset), plain, said.append)

    assert said == ["the tokenizer lacked 2 special tokens of the chat template; their embeddings are new"]
    assert settled("<|im_end|>")["input_ids"] == [asking.end_token(settled)]
    asking.settle(settings_of(dataset), settled, said.append)
    assert len(said) == 1


def test_a_tokenizer_without_a_template_needs_one() -> None:
    dataset = json_data("file:///a.jsonl", messagesField="messages")

    with pytest.raises(InvalidError, match=r"spec.dataset.chatTemplate: the tokenizer has no chat template; set one"):
        asking.settle(settings_of(dataset), tokenizers.train(iter([["a b c"]]), 0, Task.CAUSAL_LM))
