"""``spec.model``: what to start from."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from lmft_api.schema.patterns import SECRET_KEY_PATTERN
from lmft_api.schema.rules import Rule, exactly_one, only_with
from lmft_api.schema.types import ApiModel, DnsSubdomain, SmallJson, Source, Text
from lmft_api.spec.pod import SecretRef


class HubTokenRef(ApiModel):
    """One key of a Secret that holds a hub token."""

    name: DnsSubdomain
    """Name of the Secret, in the namespace of the run."""
    key: Annotated[str, StringConstraints(pattern=SECRET_KEY_PATTERN, max_length=253)] = "token"
    """Key within the Secret."""


class Tokenizer(ApiModel):
    """A tokenizer other than the model's own."""

    name: Source | None = None
    """Hub id, or s3:// or file:// folder."""
    train_vocab_size: Annotated[int, Field(ge=256, le=1_000_000)] | None = None
    """Train a byte-level BPE tokenizer of this many tokens on the training texts."""

    rules: ClassVar = (exactly_one("name", "trainVocabSize"),)


class Model(ApiModel):
    """The model to start from: a pretrained one by name, or a fresh one from a config."""

    name: Source | None = None
    """Hub id such as distilbert/distilgpt2, or a folder at s3:// or file://."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    from_config: SmallJson | None = None
    """A transformers configuration with its model_type, to train from scratch. At most 16 KiB of JSON and 8 levels."""
    tokenizer: Tokenizer | None = None
    """Another tokenizer than the model's own; required with fromConfig."""
    trust_remote_code: bool | None = None
    """Run code from the model's repository. Off by default; the cluster's policy must allow it."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_* keys for an s3:// model."""

    rules: ClassVar = (
        Rule(
            "!(has(self.name) && has(self.fromConfig))",
            "name and fromConfig are mutually exclusive; remove one",
            lambda m: m.name is None or m.from_config is None,
        ),
        Rule(
            "has(self.name) || has(self.fromConfig)",
            "set name (a pretrained model) or fromConfig (train from scratch)",
            lambda m: m.name is not None or m.from_config is not None,
        ),
        Rule(
            "!has(self.fromConfig) || has(self.name) || has(self.tokenizer)",
            "fromConfig needs a tokenizer; set tokenizer.name or tokenizer.trainVocabSize",
            lambda m: m.from_config is None or m.name is not None or m.tokenizer is not None,
            "tokenizer",
        ),
        only_with("revision", "has(self.name)", lambda m: m.name is not None, "goes with name; remove it"),
        Rule(
            "!(has(self.name) && has(self.tokenizer) && has(self.tokenizer.trainVocabSize))",
            "trainVocabSize goes with fromConfig: a pretrained model knows only its own tokens; use tokenizer.name",
            lambda m: m.name is None or m.tokenizer is None or m.tokenizer.train_vocab_size is None,
            "tokenizer",
        ),
    )
