"""``spec.dataset``: what to train and evaluate on."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lmft_api.schema.patterns import finds
from lmft_api.schema.rules import Rule, at_most_one, decimal_rule, exactly_one, only_with, total
from lmft_api.schema.types import ApiModel, Decimal, FieldPath, FileUri, HubId, Text
from lmft_api.spec.conversations import BadRows, ChatTemplate, LongRows, Packing, TrainOn
from lmft_api.spec.pod import SecretRef


class DataFormat(StrEnum):
    """Format of ``dataset.files``."""

    JSON = "json"
    TEXT = "text"
    CSV = "csv"
    PARQUET = "parquet"


ENDINGS: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.JSON: ("jsonl", "ndjson", "json"),
    DataFormat.TEXT: ("txt", "text", "md"),
    DataFormat.CSV: ("csv", "tsv"),
    DataFormat.PARQUET: ("parquet",),
}
"""Endings of files that tell their format, in small or capital letters."""


def _ending_pattern(endings: Sequence[str]) -> str:
    """Letters of both cases are listed: ignoring case takes ``ſ`` for an s in Go, and not in Python."""
    either = ("".join(f"[{letter}{letter.upper()}]" for letter in ending) for ending in endings)
    return f"[.]({'|'.join(either)})$"


_BY_ENDING = {kind: _ending_pattern(endings) for kind, endings in ENDINGS.items()}


def format_of(files: Iterable[str]) -> DataFormat | None:
    """The format that the endings of all files agree on; None if they do not, or tell none."""
    names = list(files)
    return next((kind for kind, ending in _BY_ENDING.items() if all(finds(ending, name) for name in names)), None)


class Builtin(StrEnum):
    """Data that needs no network."""

    PYTHON_DOCS = "PythonDocs"


_ENDINGS_AGREE = " || ".join(f"self.files.all(file, file.matches('{ending}'))" for ending in _BY_ENDING.values())
_HAS_PAIRS = "has(self.promptField) || has(self.completionField)"
_HAS_CONVERSATIONS = "has(self.messagesField) || has(self.promptField)"


def has_conversations(dataset: Any) -> bool:
    """Whether the rows of a ``spec.dataset`` are conversations, or pairs that are read as such."""
    return dataset.messages_field is not None or dataset.prompt_field is not None


def _has_pairs(dataset: Any) -> bool:
    return dataset.prompt_field is not None or dataset.completion_field is not None


class Dataset(ApiModel):
    """The data, which part of it, and how texts become blocks."""

    name: HubId | None = None
    """Hub id such as dany0407/eli5_category."""
    config: Text | None = None
    """Configuration (subset) of the hub data set."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    files: Annotated[list[FileUri], Field(min_length=1, max_length=64)] | None = None
    """Files at s3:// or file://, wildcards allowed."""
    format: DataFormat | None = None
    """Format of files; json is objects, one per line or over several lines, or arrays of them. Default: by ending."""
    builtin: Builtin | None = None
    """Data included in every installation: PythonDocs is the Python language reference."""
    split: Text | None = None
    """Split to use, slices allowed: train[:5000]. Default: train."""
    text_field: FieldPath | None = None
    """Dotted path to the text; a list of strings is joined with a space. Default: text."""
    messages_field: FieldPath | None = None
    """Dotted path to a conversation: a list of {role, content}, or ShareGPT's {from, value}. Instead of textField."""
    prompt_field: FieldPath | None = None
    """Dotted path to a prompt, text or a list of messages; goes with completionField. Instead of textField."""
    completion_field: FieldPath | None = None
    """Dotted path to the answer to the prompt, text or a list of messages."""
    train_on: TrainOn | None = None
    """Which tokens of a conversation carry loss. Default: Answers."""
    max_length: Annotated[int, Field(ge=8, le=131_072)] | None = None
    """Most tokens of a conversation, and of a pack of them. Default: 2048, or what the model takes if that is less."""
    long_rows: LongRows | None = None
    """What to do with conversations of more than maxLength tokens. Default: Drop."""
    packing: Packing | None = None
    """Rows fills packs of maxLength tokens with conversations that do not see each other. Default: Rows."""
    chat_template: ChatTemplate | None = None
    """How a conversation is written as text. Default: the tokenizer's own template."""
    bad_rows: BadRows | None = None
    """What to do with rows that are not conversations. Default: Refuse."""
    label_field: FieldPath | None = None
    """Dotted path to the label, for SequenceClassification. Default: label."""
    test_percent: Annotated[int, Field(ge=1, le=90)] | None = None
    """Share of the rows held out for evaluation, drawn with training.seed. Default: 20."""
    eval_split: Text | None = None
    """A split to evaluate on instead of testPercent, slices allowed."""
    block_size: Annotated[int, Field(ge=8, le=131_072)] | None = None
    """Tokens in a block, for CausalLM and MaskedLM. Default: 128."""
    isolate_documents: bool | None = None
    """Attention does not cross from one document to the next within a block, for CausalLM. Default: false."""
    mask_probability: Decimal | None = None
    """Share of the tokens to mask, for MaskedLM. Default: "0.15"."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_* keys for s3:// files."""

    rules: ClassVar = (
        exactly_one("name", "files", "builtin"),
        total(
            "has(self.files) ? self.files.map(file, size(file)).sum() : 0",
            lambda d: [len(file) for file in d.files or ()],
            8000,
            "files",
            "take wildcards, or put the files into one folder",
        ),
        Rule(
            f"!has(self.files) || has(self.format) || {_ENDINGS_AGREE}",
            "files whose endings do not agree on a format need one; set json, text, csv or parquet",
            lambda d: d.files is None or d.format is not None or format_of(d.files) is not None,
            "format",
        ),
        only_with("format", "has(self.files)", lambda d: d.files is not None, "goes with files; remove it"),
        only_with("config", "has(self.name)", lambda d: d.name is not None, "goes with name; remove it"),
        only_with("revision", "has(self.name)", lambda d: d.name is not None, "goes with name; remove it"),
        at_most_one("testPercent", "evalSplit", "remove one"),
        Rule(
            f"!(has(self.textField) && has(self.messagesField)) && !(has(self.textField) && ({_HAS_PAIRS})) && "
            f"!(has(self.messagesField) && ({_HAS_PAIRS}))",
            "set at most one of textField, messagesField, and promptField with completionField",
            lambda d: sum((d.text_field is not None, d.messages_field is not None, _has_pairs(d))) <= 1,
        ),
        only_with(
            "promptField",
            "has(self.completionField)",
            lambda d: d.completion_field is not None,
            "goes with completionField; add it",
        ),
        only_with(
            "completionField",
            "has(self.promptField)",
            lambda d: d.prompt_field is not None,
            "goes with promptField; add it",
        ),
        *(
            only_with(
                field,
                _HAS_CONVERSATIONS,
                has_conversations,
                "goes with messagesField or promptField; remove it, or name the conversations",
            )
            for field in ("trainOn", "maxLength", "longRows", "packing", "chatTemplate", "badRows")
        ),
        only_with(
            "blockSize",
            f"!({_HAS_CONVERSATIONS})",
            lambda d: not has_conversations(d),
            "goes with textField; set maxLength for conversations",
        ),
        only_with(
            "isolateDocuments",
            f"!({_HAS_CONVERSATIONS})",
            lambda d: not has_conversations(d),
            "goes with textField; conversations never see each other, remove it",
        ),
        decimal_rule("maskProbability", "mask_probability", 0.0, 0.9, above=True),
    )
