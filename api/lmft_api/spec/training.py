"""``spec.training``, ``spec.evaluation`` and ``spec.checkpoint``: how to train, when to evaluate and to save."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from lmft_api.schema.patterns import MODULE_PATTERN
from lmft_api.schema.rules import Rule, at_most_one, decimal_rule, only_with
from lmft_api.schema.types import ApiModel, Decimal, ImportPath


class Precision(StrEnum):
    """Precision of the forward and backward pass; trained weights are always kept in FP32."""

    AUTO = "Auto"
    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"


class Compile(StrEnum):
    """Whether the model's layers are compiled."""

    AUTO = "Auto"
    OFF = "Off"


class Parallelism(StrEnum):
    """How several devices divide the work."""

    AUTO = "Auto"
    DDP = "DDP"
    FSDP = "FSDP"


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


class AdapterType(StrEnum):
    """Kind of adapter."""

    LORA = "LoRA"
    DORA = "DoRA"


class Quantization(StrEnum):
    """How the frozen base model is stored while an adapter is trained."""

    NF4 = "NF4"


ALL_LINEAR = "all-linear"
"""Every linear layer except the output layer."""


class Adapter(ApiModel):
    """Train small matrices beside the model's frozen weights instead of the weights themselves."""

    type: AdapterType | None = None
    """LoRA, or DoRA, which learns magnitudes too: slower, and often as good at half the rank. Default: LoRA."""
    rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Rank of the matrices. Default: 16."""
    alpha: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The update is scaled by alpha / rank, with rankStabilized by alpha / √rank. Default: 32."""
    dropout: Decimal | None = None
    """Dropout before the matrices, quoted. Default: "0.05"."""
    target_modules: (
        Annotated[
            list[Annotated[str, StringConstraints(pattern=MODULE_PATTERN, max_length=128)]],
            Field(min_length=1, max_length=16),
        ]
        | None
    ) = None
    """Names of linear modules such as q_proj, or all-linear alone: all but the output layer. Default: [all-linear]."""
    rank_stabilized: bool | None = None
    """rsLoRA: scale by alpha / √rank, so that high ranks learn as fast as low ones. Default: false."""

    rules: ClassVar = (
        decimal_rule("dropout", "dropout", 0.0, 0.9),
        Rule(
            "!has(self.targetModules) || !('all-linear' in self.targetModules) || size(self.targetModules) == 1",
            "all-linear stands alone; remove the other names, or name each module",
            lambda a: ALL_LINEAR not in (a.target_modules or ()) or len(a.target_modules) == 1,
            "targetModules",
        ),
    )


class Training(ApiModel):
    """Hyperparameters; unset ones take the tutorial's value for the task."""

    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the training data. Default: 3 (SequenceClassification: 2)."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimiser steps, instead of epochs."""
    learning_rate: Decimal | None = None
    """Peak learning rate, quoted; an adapter takes "2e-4" by itself. Default: "2e-5"."""
    weight_decay: Decimal | None = None
    """Decoupled weight decay, quoted. Default: "0.01" (SequenceClassification: "0")."""
    per_device_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per device and forward pass. Default: 8."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Forward passes per optimiser step. Default: 1."""
    batch_size: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Rows per optimiser step, whatever the number of devices, instead of gradientAccumulationSteps; each pass takes at
    most perDeviceBatchSize of them."""
    parallelism: Parallelism | None = None
    """DDP keeps a whole model on each device; FSDP (FSDP2) divides weights, gradients and optimiser state among them,
    with an adapter the frozen weights. Auto takes FSDP where a whole model would take more than half of a GPU's memory.
    Default: Auto."""
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
    """Recompute the activations of all layers to save memory, about a third slower. Default: on a GPU, of as few layers
    as make the batch fit; false recomputes none."""
    max_grad_norm: Decimal | None = None
    """Gradient clipping by norm, quoted. Default: "1.0"."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """Seed of everything random. Default: 42."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop after this many evaluations without improvement of the evaluation loss."""
    watchdog_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Stop as Hung after this long without progress; before the first step after at least 3600. Default: 1800."""
    callbacks: Annotated[list[ImportPath], Field(min_length=1, max_length=16)] | None = None
    """Import paths of TrainerCallback classes in the image; only where the policy allows user code."""
    trainer_class: ImportPath | None = None
    """Import path of a Trainer subclass in the image, where policy allows user code; evalLoss stays the model's own."""
    adapter: Adapter | None = None
    """Train an adapter (LoRA) instead of all weights; {} takes the defaults."""
    quantization: Quantization | None = None
    """NF4 keeps the frozen base model in 4 bits while the adapter is trained (QLoRA). Default: none."""

    rules: ClassVar = (
        at_most_one("epochs", "maxSteps", "remove one"),
        at_most_one("batchSize", "gradientAccumulationSteps", "remove one"),
        Rule(
            "!has(self.quantization) || !has(self.parallelism) || self.parallelism != 'FSDP'",
            "FSDP cannot divide weights in 4 bits; take DDP or Auto, or remove quantization",
            lambda t: t.quantization is None or t.parallelism != Parallelism.FSDP,
            "parallelism",
        ),
        only_with(
            "quantization",
            "has(self.adapter)",
            lambda t: t.adapter is not None,
            "goes with adapter: weights in 4 bits cannot be trained themselves; add adapter: {}, or remove it",
        ),
        decimal_rule("learningRate", "learning_rate", 0.0, 10.0, above=True),
        decimal_rule("weightDecay", "weight_decay", 0.0, 10.0),
        decimal_rule("maxGradNorm", "max_grad_norm", 0.0, 1_000_000.0, above=True),
    )


class Evaluation(ApiModel):
    """When to evaluate."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Evaluate every this many optimiser steps. Default: after each epoch."""


class CheckpointPolicy(ApiModel):
    """When to save, and how many checkpoints to keep."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Save every this many optimiser steps. Default: after each epoch and every everyMinutes."""
    every_minutes: Annotated[int, Field(ge=1, le=1440)] | None = None
    """Save when this long has passed since the last one. Default: 10."""
    keep: Annotated[int, Field(ge=1, le=100)] | None = None
    """Complete checkpoints kept until the run is done. Default: 2."""
