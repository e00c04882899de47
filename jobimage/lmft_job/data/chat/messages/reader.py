"""Conversations from the rows of a data set, kept as texts of JSON."""

import json
from collections.abc import Callable
from typing import Any

from lmft_api.spec.resolved import DatasetSettings
from lmft_job.data.chat.messages.conversations import dumped, from_messages, from_pair, words_of
from lmft_job.data.chat.messages.wrong import BadRowError, BadRowsFound
from lmft_job.data.sides import TOOLS


class ConversationReader:
    """Reads one conversation of each row; what is wrong with a row is reported, or counted."""

    def __init__(self, chosen: DatasetSettings, bad: BadRowsFound) -> None:
        self.fields = {
            name: path
            for name, path in (
                ("messagesField", chosen.messages_field),
                ("promptField", chosen.prompt_field),
                ("completionField", chosen.completion_field),
            )
            if path is not None
        }
        self.found: set[str] = set()
        self._bad = bad
        self._paths = {name: path.split(".") for name, path in self.fields.items()}

    def read(self, row: Any, place: Callable[[], str], *, careful: bool) -> str | None:
        """The conversation of a row as JSON; None if it is none, and will be left out."""
        try:
            values = {name: _at(row, path) for name, path in self._paths.items()}
            self.found |= {name for name, value in values.items() if value is not None}
            tools = row.get(TOOLS) if isinstance(row, dict) else None
            return dumped(self._conversation(values, tools))
        except BadRowError as error:
            self._bad.add(next(iter(self.fields)), place(), error)
        except RecursionError:
            self._bad.add(next(iter(self.fields)), place(), BadRowError("nested lists", "is nested too deeply"))
        return None

    def all_read(self) -> None:
        """Every row was read: what is wrong can be told."""
        self._bad.report(absent=not self.found)

    def _conversation(self, values: dict[str, Any], tools: Any) -> dict[str, Any]:
        if "messagesField" in self.fields:
            return from_messages(values["messagesField"], tools, self.fields["messagesField"])
        names = (self.fields["promptField"], self.fields["completionField"])
        return from_pair(values["promptField"], values["completionField"], tools, names)


def _at(row: Any, path: list[str]) -> Any:
    """The value at a path through structs; names may contain dots."""
    if not path:
        return row
    if isinstance(row, dict):
        for end in range(len(path), 0, -1):
            name = ".".join(path[:end])
            if name in row and (found := _at(row[name], path[end:])) is not None:
                return found
    return None


def words(texts: list[str]) -> list[str]:
    """What is said in conversations that are kept as JSON, for a tokenizer to be trained on."""
    return [word for text in texts for word in words_of(json.loads(text))]
