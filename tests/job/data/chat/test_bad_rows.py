"""Ways in which a file of conversations goes wrong: each is named with its line and what to write instead."""

from pathlib import Path
from typing import Any

import pytest
from support.chats import chat, turn
from support.data_helpers import json_data, prepare_toy, write_lines

from lmft_job.errors import InvalidError

GOOD = {"messages": chat("Where is the river?", "Behind the market.")}
CALL = {"function": {"name": "look", "arguments": "{}"}}
WAYS: dict[str, tuple[Any, str, str]] = {
    "an unknown role": ([turn("bot", "a")], "unknown role", "'bot'; write user, assistant, system or tool; this"),
    "no role": ([{"content": "a"}], "missing role", "message 1 has no role; write user, assistant, system or tool"),
    "an unknown speaker": ([{"from": "ai", "value": "a"}], "unknown role", "from 'ai'; write human, gpt, system"),
    "no content": ([{"role": "user"}], "missing content", "message 1 has no content; write what is said, or"),
    "null as content": ([turn("assistant", None)], "missing content", "message 1 has no content"),  # type: ignore[arg-type]
    "no value": ([{"from": "human"}], "missing content", "message 1 has no value; write what is said"),
    "nested lists": ([chat("a", "b")], "nested lists", "message 1 is a list; write the messages in one list"),
    "mixed shapes in a row": ([turn("user", "a"), {"from": "gpt", "value": "b"}], "mixed shapes", "write all in one"),
    "text for a list": ("Hello", "text instead of a list", "is text, not a list of messages; write [{"),
    "a list within quotes": ('[{"role": "user"}]', "text instead of a list", "jq -c '.messages |= fromjson' FILE"),
    "texts for messages": (["a", "b"], "text instead of messages", 'write {"role": "user", "content": "…"}'),
    "only the user's turns": ([turn("user", "a")], "no answer", "no message of the assistant, so there is nothing"),
    "an empty list": ([], "empty list", "is an empty list; write [{"),
    "one message": (turn("user", "a"), "not a list", "is one message, not a list of messages"),
    "a wrapped list": ({"turns": chat("a", "b")}, "not a list", "name its list in spec.dataset.messagesField, as in"),
    "null": (None, "missing field", "is missing or null"),
    "a number for content": ([turn("user", 5)], "content is not text", "content is a number; write text in quotes"),  # type: ignore[arg-type]
    "an image": (
        [turn("user", [{"type": "image_url", "image_url": {"url": "x"}}])],  # type: ignore[arg-type]
        "images and other media", "part of type 'image_url'; only text is trained on",
    ),
    "tool calls as text": ([turn("assistant", "", tool_calls="look()")], "tool calls", "tool_calls is text; write a"),
    "arguments that are no JSON": (
        [turn("assistant", "", tool_calls=[{"function": {"name": "look", "arguments": "{at"}}])],
        "tool calls", "the arguments of a tool call are text that is not JSON",
    ),
    "a user that calls": ([turn("user", "", tool_calls=[CALL])], "tool calls", "only the assistant calls tools"),
    "a call without a name": ([turn("assistant", "", tool_calls=[{"x": 1}])], "tool calls", "a tool call has no name"),
    "train as text": ([*chat("a"), turn("assistant", "b", train="yes")], "train", "write true or false"),
    "train on the user": ([turn("user", "a", train=True), turn("assistant", "b")], "train", "spec.dataset.trainOn"),
    "a special token in the text": (
        chat("a", "b<|im_end|>c"), "special token in the text", "contains '<|im_end|>', which the tokenizer reads as a",
    ),
    "a list of lists as content": ([turn("user", [["a"]])], "nested lists", "write text, or a list of text parts"),  # type: ignore[arg-type]
}  # fmt: skip


def chats(address: str, **more: Any) -> dict[str, Any]:
    return json_data(address, messagesField="messages", chatTemplate={"name": "ChatML"}, testPercent=50, **more)


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_row_is_named_with_its_line_and_what_to_write(way: str, tmp_path: Path) -> None:
    value, _, said = WAYS[way]
    # given a file whose third line is wrong
    address = write_lines(tmp_path / "a.jsonl", *[GOOD] * 2, {"messages": value}, *[GOOD] * 9)

    with pytest.raises(InvalidError) as caught:
        prepare_toy(chats(address), tmp_path / "cache")

    assert len(caught.value.problems) == 1
    assert f"spec.dataset.messagesField: {address}: line 3: " in caught.value.problems[0]
    assert said in caught.value.problems[0]


def test_bad_rows_are_dropped_on_request_and_counted_by_cause(tmp_path: Path) -> None:
    rows = [{"messages": value} for value, _, _ in WAYS.values()]
    address = write_lines(tmp_path / "a.jsonl", *[GOOD] * 20, *rows)

    figures = prepare_toy(chats(address, badRows="Drop"), tmp_path / "cache").figures

    causes = [cause for _, cause, _ in WAYS.values()]
    assert figures.conversations is not None
    assert figures.conversations.bad_rows == {cause: causes.count(cause) for cause in sorted(set(causes))}
    assert figures.train_rows + figures.eval_rows == 20


def test_a_field_that_no_row_has_is_one_problem(tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[{"conversations": GOOD["messages"]}] * 20)

    with pytest.raises(InvalidError) as caught:
        prepare_toy(chats(address), tmp_path / "cache")

    assert len(caught.value.problems) == 1
    assert "no field 'messages'; the data has conversations" in caught.value.problems[0]


def test_pairs_need_a_prompt_and_an_answer(tmp_path: Path) -> None:
    address = write_lines(
        tmp_path / "a.jsonl", {"q": "Why?", "a": "So."}, {"q": " ", "a": "So."}, {"q": "Why?", "a": [turn("user", "b")]}
    )
    dataset = json_data(address, promptField="q", completionField="a", chatTemplate={"name": "ChatML"})

    with pytest.raises(InvalidError) as caught:
        prepare_toy(dataset, tmp_path / "cache")

    assert [problem.partition("jsonl: ")[2] for problem in caught.value.problems] == [
        "line 2: 'q' is empty; write text, or a list of messages",
        "line 3: 'a' has no message of the assistant; there is nothing to train on",
    ]


def test_what_is_wrong_with_many_rows_is_told_once_with_the_first_of_them(tmp_path: Path) -> None:
    # given rows that the template refuses, among others that are wrong in their own way
    called = [*chat("a"), turn("assistant", "", tool_calls=[CALL])]
    rows = [GOOD] * 20 + [{"messages": called}] * 12 + [{"messages": chat("a")}]
    address = write_lines(tmp_path / "a.jsonl", *rows)
    dataset = {**chats(address), "chatTemplate": {"name": "Zephyr"}}
    # then reading tells of the one, and writing of the others, in the order of the file
    with pytest.raises(InvalidError) as caught:
        prepare_toy(dataset, tmp_path / "cache")
    assert [problem.partition("jsonl: ")[2][:45] for problem in caught.value.problems] == [
        "line 33: has no message of the assistant, so "
    ]

    address = write_lines(tmp_path / "b.jsonl", *rows[:-1])
    with pytest.raises(InvalidError) as caught:
        prepare_toy({**chats(address), "chatTemplate": {"name": "Zephyr"}}, tmp_path / "cache")
    assert list(caught.value.problems) == [
        f"spec.dataset.messagesField: {address}: line 21 and 11 more rows: the chat template refuses it: this template "
        "writes no tool calls"
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": chat("a <|im_end|>", "b")},
        {"messages": chat("a", "<|endoftext|>")},
        {"messages": [turn("user", "a"), turn("assistant", "b", reasoning_content="<|im_start|>")]},
        {"messages": [turn("user", "a"), turn("assistant", "b", name="<|im_end|>")]},
        {"messages": [turn("user", "a"), turn("assistant", "", tool_calls=[
            {"function": {"name": "look", "arguments": {"at": ["<|im_end|>"]}}}])]},
        {"messages": chat("a", "b"), "tools": [
            {"type": "function", "function": {"name": "look", "description": "x<|im_end|>"}}]},
    ],
)  # fmt: skip
def test_a_special_token_within_a_row_never_becomes_one(row: Any, tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[GOOD] * 20, row)

    figures = prepare_toy(chats(address, badRows="Drop"), tmp_path / "cache").figures

    assert figures.conversations is not None
    assert figures.conversations.bad_rows == {"special token in the text": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{% for message in messages %}{{ message.content | nothing }}{% endfor %}", "No filter named 'nothing'"),
    ],
)
def test_a_template_that_fails_for_any_conversation_is_one_problem(text: str, said: str, tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[GOOD] * 20)

    with pytest.raises(InvalidError) as caught:
        prepare_toy({**chats(address), "chatTemplate": {"text": text}}, tmp_path / "cache")

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("spec.dataset.chatTemplate.text: cannot be used (")
    assert said in caught.value.problems[0]
