"""``spec.dataset``: what to train and evaluate on."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lmft_api.schema.rules import Rule, at_most_one, decimal_rule, exactly_one, only_with, total
from lmft_api.schema.types import ApiModel, Decimal, FieldPath, FileUri, HubId, Text
from lmft_api.spec.pod import SecretRef


class DataFormat(StrEnum):
    """Format of ``dataset.files``."""

    JSON = "json"
    TEXT = "text"
    CSV = "csv"
    PARQUET = "parquet"


class Builtin(StrEnum):
    """Data that needs no network."""

    PYTHON_DOCS = "PythonDocs"


class Dataset(ApiModel):
    """The data, which part of it, and how texts become blocks."""

    name: HubId | None = None
    """Hub id such as dany0407/eli5_category."""
    config: Text | None = None
    """Configuration (subset) of the hub data set."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    files: Annotated[list[FileUri], Field(min_length=1, max_length=64)] | None = None
    """Files at s3:// or file://, wildcards allowed; needs format."""
    format: DataFormat | None = None
    """Format of files; json means objects, one per line or over several lines, or arrays of them."""
    builtin: Builtin | None = None
    """Data included in every installation: PythonDocs is the Python language reference."""
    split: Text | None = None
    """Split to use, slices allowed: train[:5000]. Default: train."""
    text_field: FieldPath | None = None
    """Dotted path to the text; a list of strings is joined with a space. Default: text."""
    label_field: FieldPath | None = None
    """Dotted path to the label, for SequenceClassification. Default: label."""
    test_percent: Annotated[int, Field(ge=1, le=90)] | None = None
    """Share of the rows held out for evaluation, drawn with training.seed. Default: 20."""
    eval_split: Text | None = None
    """A split to evaluate on instead of testPercent, slices allowed."""
    block_size: Annotated[int, Field(ge=8, le=131_072)] | None = None
    """Tokens in a block, for CausalLM and MaskedLM. Default: 128."""
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
            "!has(self.files) || has(self.format)",
            "files need format; set json, text, csv or parquet",
            lambda d: d.files is None or d.format is not None,
            "format",
        ),
        only_with("format", "has(self.files)", lambda d: d.files is not None, "goes with files; remove it"),
        only_with("config", "has(self.name)", lambda d: d.name is not None, "goes with name; remove it"),
        only_with("revision", "has(self.name)", lambda d: d.name is not None, "goes with name; remove it"),
        at_most_one("testPercent", "evalSplit", "remove one"),
        decimal_rule("maskProbability", "mask_probability", 0.0, 0.9, above=True),
    )
