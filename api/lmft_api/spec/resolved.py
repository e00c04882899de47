"""A spec with every default filled in: the tutorials' numbers; :mod:`lmft_api.tasks` has those that differ by task."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic.alias_generators import to_camel

from lmft_api.spec import (
    ALL_LINEAR,
    Adapter,
    AdapterType,
    BadRows,
    ChatTemplate,
    Compile,
    Dataset,
    LMFineTuneSpec,
    LongRows,
    Model,
    Optimizer,
    Packing,
    Parallelism,
    Precision,
    PushToHub,
    Quantization,
    Scheduler,
    TrainOn,
    Weights,
)
from lmft_api.spec.dataset import format_of, has_conversations
from lmft_api.tasks import TASKS, Task

ADAPTER_LEARNING_RATE = 2e-4
"""Peak learning rate of an adapter: about ten times that of all weights (QLoRA, Dettmers et al. 2023, table 9)."""


@dataclass(frozen=True)
class DatasetSettings:
    """Resolved ``spec.dataset``: either text_field is set, or what concerns conversations."""

    source: Dataset
    split: str
    text_field: str | None
    label_field: str | None
    test_percent: int | None
    eval_split: str | None
    block_size: int | None
    mask_probability: float | None
    messages_field: str | None = None
    prompt_field: str | None = None
    completion_field: str | None = None
    train_on: TrainOn | None = None
    max_length: int | None = None
    long_rows: LongRows | None = None
    packing: Packing | None = None
    chat_template: ChatTemplate | None = None
    bad_rows: BadRows | None = None
    isolate_documents: bool | None = None

    @property
    def has_conversations(self) -> bool:
        """Whether rows are conversations."""
        return self.train_on is not None

    @property
    def fields(self) -> tuple[str, ...]:
        """Dotted paths to what is trained on: the text, the conversation, or prompt and completion."""
        given = (self.text_field, self.messages_field, self.prompt_field, self.completion_field)
        return tuple(path for path in given if path is not None)


@dataclass(frozen=True)
class AdapterSettings:
    """Resolved ``spec.training.adapter``."""

    type: AdapterType
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    rank_stabilized: bool

    @property
    def all_linear(self) -> bool:
        """Whether every linear layer is a target, rather than those that are named."""
        return self.target_modules == (ALL_LINEAR,)


@dataclass(frozen=True)
class TrainingSettings:
    """Resolved ``spec.training``; decimals as floats."""

    epochs: int | None
    max_steps: int | None
    learning_rate: float
    weight_decay: float
    per_device_batch_size: int
    gradient_accumulation_steps: int
    warmup_percent: int
    scheduler: Scheduler
    optimizer: Optimizer
    precision: Precision
    compile: Compile
    gradient_checkpointing: bool | None
    max_grad_norm: float
    seed: int
    early_stopping_patience: int | None
    watchdog_seconds: int
    callbacks: tuple[str, ...]
    trainer_class: str | None
    adapter: AdapterSettings | None = None
    quantization: Quantization | None = None
    batch_size: int | None = None
    parallelism: Parallelism = Parallelism.AUTO


@dataclass(frozen=True)
class EvaluationSettings:
    """Resolved ``spec.evaluation``; None means after each epoch."""

    every_steps: int | None


@dataclass(frozen=True)
class CheckpointSettings:
    """Resolved ``spec.checkpoint``; without every_steps: after each epoch and every every_minutes."""

    every_steps: int | None
    every_minutes: int
    keep: int


@dataclass(frozen=True)
class SampleSettings:
    """Resolved ``spec.sample``; a conversation is a list of {role, content}."""

    prompts: tuple[str, ...]
    max_new_tokens: int
    top_k: int
    top_p: float
    conversations: tuple[tuple[dict[str, str], ...], ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """What the model answers, as the status shows it: the prompts, then each conversation's last turn."""
        return (*self.prompts, *(turns[-1]["content"] for turns in self.conversations))


@dataclass(frozen=True)
class OutputSettings:
    """Resolved ``spec.output``."""

    uri: str | None
    weights: Weights
    push_to_hub: PushToHub | None
    merge: bool | None = None
    """Whether the adapter is merged; None without one."""


@dataclass(frozen=True)
class Settings:
    """A run's settings as the job uses them and the report lists them."""

    task: Task
    model: Model
    dataset: DatasetSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    checkpoint: CheckpointSettings
    sample: SampleSettings
    output: OutputSettings
    gpus: int
    nodes: int = 1

    def flat(self) -> dict[str, Any]:
        """Dotted snake_case name to plain JSON value, for the report; unset values are left out."""
        rows: dict[str, Any] = {"task": self.task.value}
        rows |= {f"model.{key}": value for key, value in self.model.model_dump(exclude_none=True).items()}
        for section in ("dataset", "training", "evaluation", "checkpoint", "sample", "output"):
            for key, value in asdict(getattr(self, section)).items():
                if key == "source":
                    source = self.dataset.source.model_dump(
                        exclude_none=True, include={"name", "config", "revision", "files", "format", "builtin"}
                    )
                    rows |= {f"dataset.{name}": entry for name, entry in source.items()}
                elif isinstance(value, PushToHub):
                    rows[f"{section}.{key}"] = value.repository
                elif isinstance(value, dict):
                    listed = {name: list(v) if isinstance(v, tuple) else v for name, v in value.items()}
                    rows |= {f"{section}.{key}.{name}": entry for name, entry in listed.items()}
                elif isinstance(value, ChatTemplate):
                    rows[f"{section}.{key}"] = value.model_dump(mode="json", exclude_none=True)
                elif value is not None and value != ():
                    rows[f"{section}.{key}"] = list(value) if isinstance(value, tuple) else value
        rows["resources.gpus"] = self.gpus
        if self.nodes > 1:
            rows["resources.nodes"] = self.nodes
        return rows

    def named(self) -> dict[str, Any]:
        """The same values as a manifest names and nests them: ``{"training": {"learningRate": 5e-05, …}, …}``."""
        nested: dict[str, Any] = {}
        for name, value in self.flat().items():
            *above, last = (to_camel(part) for part in _MANIFEST_NAMES.get(name, name).split("."))
            inner = nested
            for part in above:
                inner = inner.setdefault(part, {})
            # The keys of a model's own configuration are transformers'.
            inner[last] = _camel(value) if name != "model.from_config" else value
        return nested


_MANIFEST_NAMES = {"resources.gpus": "resources.gpus_per_node", "output.push_to_hub": "output.push_to_hub.repository"}


def _camel(value: Any) -> Any:
    return {to_camel(key): _camel(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def resolve(spec: LMFineTuneSpec) -> Settings:
    """Fill every default of a valid spec."""
    evaluation, checkpoint, output = spec.evaluation, spec.checkpoint, spec.output
    return Settings(
        task=spec.task,
        model=spec.model,
        dataset=_dataset(spec),
        training=_training(spec),
        evaluation=EvaluationSettings(evaluation.every_steps if evaluation else None),
        checkpoint=CheckpointSettings(
            every_steps=checkpoint.every_steps if checkpoint else None,
            every_minutes=(checkpoint.every_minutes if checkpoint else None) or 10,
            keep=(checkpoint.keep if checkpoint else None) or 2,
        ),
        sample=_sample(spec),
        output=OutputSettings(
            uri=output.uri if output else None,
            weights=(output.weights if output else None) or Weights.LAST,
            push_to_hub=output.push_to_hub if output else None,
            merge=_merge(spec),
        ),
        gpus=(spec.resources.gpus_per_node if spec.resources else None) or 0,
        nodes=(spec.resources.nodes if spec.resources else None) or 1,
    )


def _merge(spec: LMFineTuneSpec) -> bool | None:
    if spec.training is None or spec.training.adapter is None:
        return None
    return spec.output is None or spec.output.merge is not False


def _dataset(spec: LMFineTuneSpec) -> DatasetSettings:
    given, default = spec.dataset, TASKS[spec.task]
    if given.files is not None and given.format is None:
        given = given.model_copy(update={"format": format_of(given.files)})
    share = default.mask_probability
    if share is not None and given.mask_probability is not None:
        share = float(given.mask_probability)
    settings = DatasetSettings(
        source=given,
        split=given.split or "train",
        text_field=given.text_field or ("answers.text" if given.builtin else "text"),
        label_field=default.label_field and (given.label_field or default.label_field),
        test_percent=None if given.eval_split else given.test_percent or 20,
        eval_split=given.eval_split,
        block_size=default.block_size and (given.block_size or default.block_size),
        mask_probability=share,
        isolate_documents=given.isolate_documents,
    )
    if not has_conversations(given):
        return settings
    return replace(
        settings,
        text_field=None,
        block_size=None,
        messages_field=given.messages_field,
        prompt_field=given.prompt_field,
        completion_field=given.completion_field,
        train_on=given.train_on or TrainOn.ANSWERS,
        max_length=given.max_length,
        long_rows=given.long_rows or LongRows.DROP,
        packing=given.packing or Packing.ROWS,
        chat_template=given.chat_template,
        bad_rows=given.bad_rows or BadRows.REFUSE,
    )


def _training(spec: LMFineTuneSpec) -> TrainingSettings:
    default = TASKS[spec.task]
    settings = TrainingSettings(
        epochs=default.epochs,
        max_steps=None,
        learning_rate=2e-5,
        weight_decay=default.weight_decay,
        per_device_batch_size=8,
        gradient_accumulation_steps=1,
        warmup_percent=0,
        scheduler=Scheduler.LINEAR,
        optimizer=Optimizer.ADAMW,
        precision=Precision.AUTO,
        compile=Compile.AUTO,
        gradient_checkpointing=None,
        max_grad_norm=1.0,
        seed=42,
        early_stopping_patience=None,
        watchdog_seconds=1800,
        callbacks=(),
        trainer_class=None,
    )
    given = spec.training
    if given is None:
        return settings

    chosen: dict[str, Any] = {
        name: getattr(given, name) for name in type(given).model_fields if getattr(given, name) is not None
    }
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        if name in chosen:
            chosen[name] = float(chosen[name])
    chosen["callbacks"] = tuple(given.callbacks or ())
    if given.adapter is not None:
        chosen["adapter"] = _adapter(given.adapter)
        chosen.setdefault("learning_rate", ADAPTER_LEARNING_RATE)
    if given.max_steps is not None:
        chosen["epochs"] = None
    return replace(settings, **chosen)


def _adapter(given: Adapter) -> AdapterSettings:
    return AdapterSettings(
        type=given.type or AdapterType.LORA,
        rank=given.rank or 16,
        alpha=given.alpha or 32,
        dropout=0.05 if given.dropout is None else float(given.dropout),
        target_modules=tuple(given.target_modules or (ALL_LINEAR,)),
        rank_stabilized=bool(given.rank_stabilized),
    )


def _sample(spec: LMFineTuneSpec) -> SampleSettings:
    given = spec.sample
    return SampleSettings(
        prompts=tuple((given.prompts if given else None) or ()),
        max_new_tokens=(given.max_new_tokens if given else None) or 100,
        top_k=(given.top_k if given else None) or TASKS[spec.task].top_k,
        top_p=float(given.top_p) if given and given.top_p is not None else 0.95,
        conversations=tuple(
            tuple(turn.model_dump(mode="json") for turn in conversation.messages)
            for conversation in (given.conversations if given else None) or ()
        ),
    )
