"""What to train on rows like these: pure decisions from the first rows of the data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lmft_api.tasks import DEFAULT_TASK, TASKS, Task, takes
from lmft_job.data.text.fields import ConversationError, WrongKindError, as_text, is_missing, is_turn, paths, pick

Rows = list[dict[str, Any]]

CHAT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""A small model with a chat template, under the Apache 2.0 licence."""
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("user", "assistant"),
    ("source", "target"),
)
"""Names of columns for a prompt and its answer, as common data sets have them."""
_TEXTS = ("text", "content", "body", "document", "article", "sentence", "review", "comment", "message")
_LABELS = ("label", "labels", "class", "category", "sentiment", "intent", "rating", "stars", "target", "topic")
_MOST_CLASSES = 50


@dataclass(frozen=True)
class Proposal:
    """A task for the data.

    Attributes:
        task: what to learn.
        fields: fields of ``spec.dataset`` that name parts of a row.
        model: a model to start from.
        reason: what was seen, as a sentence.
        prompt: a prompt of the data, for samples before and after; None if there is none.
    """

    task: Task
    fields: dict[str, str]
    model: str
    reason: str
    prompt: str | None = None


def propose(rows: Rows, task: Task | None = None) -> Proposal:
    """The task that rows suggest: conversations, pairs, labelled texts, or texts.

    Args:
        rows: the first rows, at least one.
        task: what the user wants to learn; None leaves the choice to the data.

    Raises:
        ValueError: no column fits; the message says what the rows have.
    """
    if task in (None, DEFAULT_TASK) and (found := _conversations(rows) or _pairs(rows)):
        return found
    texts = _text_columns(rows)
    if not texts:
        names = ", ".join(sorted({path for row in rows for path in paths(row)})) or "nothing"
        raise ValueError(f"no column contains text; the rows have {names}")
    if task is None or takes(task, "label_field"):
        labels = _label_column(rows, texts)
        if labels is not None:
            return _labelled(rows, texts, labels)
        if task is not None:
            raise ValueError(f"no column looks like a label; name it {_LABELS[0]}, or one of {', '.join(_LABELS[1:])}")
    chosen = task or DEFAULT_TASK
    text = texts[0]
    return Proposal(chosen, {"textField": text}, TASKS[chosen].starter, f"texts in {text!r}")


def _conversations(rows: Rows) -> Proposal | None:
    for name in _columns(rows):
        turns = [row[name] for row in rows if isinstance(row.get(name), list) and row[name]]
        if turns and all(is_turn(value[0]) for value in turns):
            prompt = next((_content(turn) for value in turns for turn in value if _is_user(turn)), None)
            fields = {"messagesField": name}
            return Proposal(DEFAULT_TASK, fields, CHAT_MODEL, f"conversations in {name!r}", prompt)
    return None


def _is_user(turn: Any) -> bool:
    return isinstance(turn, dict) and (turn.get("role") == "user" or turn.get("from") in ("human", "user"))


def _content(turn: dict[str, Any]) -> str | None:
    value = turn.get("content", turn.get("value"))
    return value if isinstance(value, str) else None


def _pairs(rows: Rows) -> Proposal | None:
    by_name = {name.lower(): name for name in _columns(rows)}
    for first, second in _PAIRS:
        names = by_name.get(first), by_name.get(second)
        if names[0] is None or names[1] is None:
            continue
        if all(_lengths(rows, name) for name in (names[0], names[1])):
            fields = {"promptField": names[0], "completionField": names[1]}
            prompt = next((text for row in rows if isinstance(text := row.get(names[0]), str) and text.strip()), None)
            return Proposal(
                DEFAULT_TASK, fields, CHAT_MODEL, f"prompts in {names[0]!r} with answers in {names[1]!r}", prompt
            )
    return None


def _labelled(rows: Rows, texts: list[str], label: str) -> Proposal:
    task = next(task for task in TASKS if takes(task, "label_field"))
    text = next(path for path in texts if path != label)
    classes = len(_values(rows, label))
    words = f"texts in {text!r} with {classes} labels in {label!r}"
    return Proposal(task, {"textField": text, "labelField": label}, TASKS[task].starter, words)


def _label_column(rows: Rows, texts: list[str]) -> str | None:
    """A column named like a label, with few values, beside a text."""
    by_name = {name.lower(): name for name in _columns(rows)}
    for name in (by_name[wanted] for wanted in _LABELS if wanted in by_name):
        values = _values(rows, name)
        if 2 <= len(values) <= _MOST_CLASSES and any(path != name for path in texts):
            return name
    return None


def _values(rows: Rows, name: str) -> set[str]:
    return {str(row[name]) for row in rows if not is_missing(row.get(name)) and isinstance(row[name], str | int)}


def _text_columns(rows: Rows) -> list[str]:
    """Paths to texts: those with a usual name first, then by mean length."""
    lengths = {path: found for path in _all_paths(rows) if (found := _lengths(rows, path))}

    def rank(path: str) -> tuple[bool, float]:
        usual = path.rsplit(".", 1)[-1].lower() in _TEXTS
        return not usual, -sum(lengths[path]) / len(rows)

    return sorted(lengths, key=rank)


def _lengths(rows: Rows, path: str) -> list[int]:
    """Lengths of the texts at a path; empty if a row has something else there, or all are numbers."""
    found, numbers = [], True
    for row in rows:
        try:
            text = as_text(pick(row, path.split(".")))
        except (WrongKindError, ConversationError):
            return []
        if text is not None:
            found.append(len(text))
            numbers = numbers and _is_number(text)
    return [] if numbers else found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _all_paths(rows: Rows) -> Iterable[str]:
    return dict.fromkeys(path for row in rows for path in paths(row))
