"""How conversations are read, written with a template, and trained on: parts of ``spec.dataset``."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import StringConstraints

from lmft_api.schema.rules import exactly_one
from lmft_api.schema.types import ApiModel


class TrainOn(StrEnum):
    """Which tokens of a conversation carry loss."""

    ANSWERS = "Answers"
    EVERYTHING = "Everything"
    LAST_ANSWER = "LastAnswer"


class LongRows(StrEnum):
    """What becomes of conversations that are longer than ``maxLength``."""

    DROP = "Drop"
    TRUNCATE = "Truncate"
    REFUSE = "Refuse"


class Packing(StrEnum):
    """Whether several conversations share a row of the batch."""

    ROWS = "Rows"
    NONE = "None"


class BadRows(StrEnum):
    """What becomes of rows that are not conversations."""

    REFUSE = "Refuse"
    DROP = "Drop"


class ChatTemplateName(StrEnum):
    """Templates that need not be written in the manifest."""

    CHATML = "ChatML"
    LLAMA3 = "Llama3"
    GEMMA = "Gemma"
    MISTRAL = "Mistral"
    ZEPHYR = "Zephyr"


class ChatTemplate(ApiModel):
    """A template by name, or its text."""

    name: ChatTemplateName | None = None
    """ChatML, Llama3, Gemma, Mistral or Zephyr; special tokens that the tokenizer lacks are added to it."""
    text: Annotated[str, StringConstraints(min_length=1, max_length=32_768)] | None = None
    """A Jinja template as in transformers' apply_chat_template; rendered in a sandbox, with a time limit."""

    rules: ClassVar = (exactly_one("name", "text"),)


class TurnRole(StrEnum):
    """Who speaks in a conversation of ``sample.conversations``."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Turn(ApiModel):
    """A message of a conversation."""

    role: TurnRole
    """system, user or assistant."""
    content: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    """What is said."""
