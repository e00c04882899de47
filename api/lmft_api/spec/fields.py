"""``spec`` of an LMFineTune: what to train, on what, how, and where the result goes.

Defaults that differ by task are resolved in :mod:`lmft_api.spec.resolved`, not here: an API server fills defaults in
before its rules run, so a default for ``epochs`` would make "epochs or maxSteps" always both.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from lmft_api.schema.types import (
    REPOSITORY_PATTERN,
    SECRET_KEY_PATTERN,
    ApiModel,
    Decimal,
    DnsSubdomain,
    FieldPath,
    FileUri,
    HubId,
    ImportPath,
    Rule,
    SmallJson,
    Source,
    StorageUri,
    Text,
    at_most_one,
    decimal_rule,
    exactly_one,
    only_with,
    total,
)
from lmft_api.spec.pod import PodTemplate, Resources, SecretRef


class Task(StrEnum):
    """What the model learns."""

    CAUSAL_LM = "CausalLM"
    MASKED_LM = "MaskedLM"
    SEQUENCE_CLASSIFICATION = "SequenceClassification"


class DataFormat(StrEnum):
    """Format of ``dataset.files``."""

    JSON = "json"
    TEXT = "text"
    CSV = "csv"
    PARQUET = "parquet"


class Builtin(StrEnum):
    """Data that needs no network."""

    PYTHON_DOCS = "PythonDocs"


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass; weights are kept in FP32 always."""

    AUTO = "Auto"
    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"


class Compile(StrEnum):
    """Whether the model's layers are compiled."""

    AUTO = "Auto"
    OFF = "Off"


class Scheduler(StrEnum):
    """Learning-rate schedule after the warm-up."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    CONSTANT = "Constant"


class Optimizer(StrEnum):
    """Optimiser."""

    ADAMW = "AdamW"
    ADAFACTOR = "Adafactor"
    SGD = "SGD"


class Weights(StrEnum):
    """Which weights are kept."""

    LAST = "Last"
    BEST = "Best"


class Preparation(StrEnum):
    """Where tokenising happens."""

    AUTO = "Auto"
    SEPARATE = "Separate"
    INLINE = "Inline"


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
    """Run code that the model's repository carries. Off unless set, and the cluster's policy may forbid it."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_* keys for an s3:// model."""

    rules: ClassVar = (
        Rule(
            "!(has(self.name) && has(self.fromConfig))",
            "name and fromConfig exclude each other; remove one",
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
    """Format of files; json means objects, on a line each or over several, or arrays of them."""
    builtin: Builtin | None = None
    """Data that every installation carries: PythonDocs is the Python language reference."""
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


class Training(ApiModel):
    """Hyperparameters; what is not set takes the tutorial's number for the task."""

    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the training data. Default: 3 (SequenceClassification: 2)."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimiser steps, instead of epochs."""
    learning_rate: Decimal | None = None
    """Peak learning rate, quoted. Default: "2e-5"."""
    weight_decay: Decimal | None = None
    """Decoupled weight decay, quoted. Default: "0.01" (SequenceClassification: "0")."""
    per_device_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per device and forward pass. Default: 8."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Forward passes per optimiser step. Default: 1."""
    warmup_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the steps during which the learning rate rises. Default: 0."""
    scheduler: Scheduler | None = None
    """Learning-rate schedule. Default: Linear."""
    optimizer: Optimizer | None = None
    """Optimiser. Default: AdamW."""
    precision: Precision | None = None
    """Auto takes BF16 where the device has it, else FP32. Default: Auto."""
    compile: Compile | None = None
    """Auto compiles the model's layers on a GPU where the planned steps pay for it. Default: Auto."""
    gradient_checkpointing: bool | None = None
    """Recompute activations to save memory, about a third slower. Default: false."""
    max_grad_norm: Decimal | None = None
    """Gradient clipping by norm, quoted. Default: "1.0"."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """Seed of everything random. Default: 42."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop after this many evaluations without improvement of the evaluation loss."""
    watchdog_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Stop as hung when nothing moves for this long; before the first step after 3600 at least. Default: 1800."""
    callbacks: Annotated[list[ImportPath], Field(min_length=1, max_length=16)] | None = None
    """Import paths of TrainerCallback classes in the image; only where the policy allows user code."""
    trainer_class: ImportPath | None = None
    """Import path of a Trainer subclass in the image, where policy allows user code; evalLoss stays the model's own."""

    rules: ClassVar = (
        at_most_one("epochs", "maxSteps", "remove one"),
        decimal_rule("learningRate", "learning_rate", 0.0, 10.0, above=True),
        decimal_rule("weightDecay", "weight_decay", 0.0, 10.0),
        decimal_rule("maxGradNorm", "max_grad_norm", 0.0, 1_000_000.0, above=True),
    )


class Evaluation(ApiModel):
    """When to evaluate."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Evaluate every so many optimiser steps. Default: after each epoch."""


class CheckpointPolicy(ApiModel):
    """When to save, and how many checkpoints to keep."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Save every so many optimiser steps. Default: after each epoch and every everyMinutes."""
    every_minutes: Annotated[int, Field(ge=1, le=1440)] | None = None
    """Save when this long has passed since the last one. Default: 10."""
    keep: Annotated[int, Field(ge=1, le=100)] | None = None
    """Complete checkpoints kept while the run goes on. Default: 2."""


class Sample(ApiModel):
    """Prompts answered by the model before and after training."""

    prompts: (
        Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=4096)]], Field(max_length=16)] | None
    ) = None
    """CausalLM continues them, MaskedLM fills <mask>, SequenceClassification labels them."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Tokens to generate. Default: 100."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Sample among the k likeliest tokens; for MaskedLM the number of fills. Default: 50 (MaskedLM: 3)."""
    top_p: Decimal | None = None
    """Sample within this much probability mass, quoted. Default: "0.95"."""

    rules: ClassVar = (
        decimal_rule("topP", "top_p", 0.0, 1.0, above=True),
        total(
            "has(self.prompts) ? self.prompts.map(prompt, size(prompt)).sum() : 0",
            lambda s: [len(prompt) for prompt in s.prompts or ()],
            8000,
            "prompts",
            "shorten them, or ask fewer",
        ),
    )


class PushToHub(ApiModel):
    """Upload the model to the hub when the run is done."""

    repository: Annotated[str, StringConstraints(pattern=REPOSITORY_PATTERN, max_length=200)]
    """owner/name; made when it does not exist."""
    private: bool = True
    """Visibility of a repository made by the run."""


class Output(ApiModel):
    """Where checkpoints, model and report go."""

    uri: StorageUri | None = None
    """s3://bucket/prefix, or file:///folder. Default: what the platform team configured."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where needed, AWS_ENDPOINT_URL and AWS_REGION."""
    weights: Weights | None = None
    """Last, or the Best by evaluation loss. Default: Last."""
    push_to_hub: PushToHub | None = None
    """Upload the model to the hub too."""


class ResumeFrom(ApiModel):
    """Another run to start from."""

    name: DnsSubdomain
    """Name of an LMFineTune in the same namespace; it is waited for. One that failed gives its newest checkpoint."""


class LMFineTuneSpec(ApiModel):
    """A fine-tuning run. Only model, dataset and, without a platform default, output are required."""

    task: Task = Task.CAUSAL_LM
    """CausalLM, MaskedLM or SequenceClassification."""
    model: Model
    """What to start from."""
    dataset: Dataset
    """What to train and evaluate on."""
    training: Training | None = None
    """Hyperparameters."""
    evaluation: Evaluation | None = None
    """When to evaluate."""
    checkpoint: CheckpointPolicy | None = None
    """When to save."""
    sample: Sample | None = None
    """Prompts answered before and after."""
    output: Output | None = None
    """Where the result goes."""
    hub_token_secret_ref: HubTokenRef | None = None
    """Token for the model, the data set and the push."""
    resources: Resources | None = None
    """What the pod asks for."""
    pod_template: PodTemplate | None = None
    """How the pod fits into the cluster."""
    preparation: Preparation | None = None
    """Auto prepares on a CPU in a Job of its own before a GPU is taken. Default: Auto."""
    resume_from: ResumeFrom | None = None
    """Start from the model, or else the newest checkpoint, of another run in this namespace."""
    suspend: bool | None = None
    """Stop with a checkpoint and free what the run holds; false goes on."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Delete the resource this long after it ended; storage stays."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Longest running time, over all attempts."""
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Attempts after failures that may pass; interruptions do not count. Default: 3."""

    rules: ClassVar = (
        Rule(
            "self.task == 'MaskedLM' || !has(self.dataset.maskProbability)",
            "maskProbability goes with task MaskedLM; remove it or change task",
            lambda s: s.task == Task.MASKED_LM or s.dataset.mask_probability is None,
            "dataset.maskProbability",
        ),
        Rule(
            "self.task == 'SequenceClassification' || !has(self.dataset.labelField)",
            "labelField goes with task SequenceClassification; remove it or change task",
            lambda s: s.task == Task.SEQUENCE_CLASSIFICATION or s.dataset.label_field is None,
            "dataset.labelField",
        ),
        Rule(
            "self.task != 'SequenceClassification' || !has(self.dataset.blockSize)",
            "blockSize goes with CausalLM and MaskedLM; SequenceClassification pads rows instead, remove it",
            lambda s: s.task != Task.SEQUENCE_CLASSIFICATION or s.dataset.block_size is None,
            "dataset.blockSize",
        ),
        Rule(
            "!has(self.output) || !has(self.output.pushToHub) || has(self.hubTokenSecretRef)",
            "pushToHub needs hubTokenSecretRef with a token that may write",
            lambda s: s.output is None or s.output.push_to_hub is None or s.hub_token_secret_ref is not None,
            "hubTokenSecretRef",
        ),
    )
