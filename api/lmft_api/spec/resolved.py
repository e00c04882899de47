"""A spec with every default filled in: the tutorials' numbers, which differ by task.

Sources of the numbers: the Hugging Face guides "Causal language modeling", "Masked language modeling" and the
quicktour's text classification with Trainer.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lmft_api.spec import (
    Compile,
    Dataset,
    LMFineTuneSpec,
    Model,
    Optimizer,
    Precision,
    PushToHub,
    Scheduler,
    Task,
    Weights,
)


@dataclass(frozen=True)
class DatasetSettings:
    """Resolved ``spec.dataset``."""

    source: Dataset
    split: str
    text_field: str
    label_field: str | None
    test_percent: int | None
    eval_split: str | None
    block_size: int | None
    mask_probability: float | None


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
    gradient_checkpointing: bool
    max_grad_norm: float
    seed: int
    early_stopping_patience: int | None
    watchdog_seconds: int
    callbacks: tuple[str, ...]
    trainer_class: str | None


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
    """Resolved ``spec.sample``."""

    prompts: tuple[str, ...]
    max_new_tokens: int
    top_k: int
    top_p: float


@dataclass(frozen=True)
class OutputSettings:
    """Resolved ``spec.output``."""

    uri: str | None
    weights: Weights
    push_to_hub: PushToHub | None


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
                elif value is not None and value != ():
                    rows[f"{section}.{key}"] = list(value) if isinstance(value, tuple) else value
        rows["resources.gpus"] = self.gpus
        return rows


_DEFAULT_EPOCHS = {Task.CAUSAL_LM: 3, Task.MASKED_LM: 3, Task.SEQUENCE_CLASSIFICATION: 2}
_DEFAULT_WEIGHT_DECAY = {Task.CAUSAL_LM: 0.01, Task.MASKED_LM: 0.01, Task.SEQUENCE_CLASSIFICATION: 0.0}
_DEFAULT_TOP_K = {Task.CAUSAL_LM: 50, Task.MASKED_LM: 3, Task.SEQUENCE_CLASSIFICATION: 50}


def resolve(spec: LMFineTuneSpec) -> Settings:
    """Fill every default of a valid spec."""
    task = spec.task
    packed = task != Task.SEQUENCE_CLASSIFICATION
    given, training = spec.dataset, spec.training
    text_field = given.text_field or ("answers.text" if given.builtin else "text")
    dataset = DatasetSettings(
        source=given,
        split=given.split or "train",
        text_field=text_field,
        label_field=None if packed else given.label_field or "label",
        test_percent=None if given.eval_split else given.test_percent or 20,
        eval_split=given.eval_split,
        block_size=(given.block_size or 128) if packed else None,
        mask_probability=_number(given.mask_probability, 0.15) if task == Task.MASKED_LM else None,
    )
    base = TrainingSettings(
        epochs=_DEFAULT_EPOCHS[task],
        max_steps=None,
        learning_rate=2e-5,
        weight_decay=_DEFAULT_WEIGHT_DECAY[task],
        per_device_batch_size=8,
        gradient_accumulation_steps=1,
        warmup_percent=0,
        scheduler=Scheduler.LINEAR,
        optimizer=Optimizer.ADAMW,
        precision=Precision.AUTO,
        compile=Compile.AUTO,
        gradient_checkpointing=False,
        max_grad_norm=1.0,
        seed=42,
        early_stopping_patience=None,
        watchdog_seconds=1800,
        callbacks=(),
        trainer_class=None,
    )
    if training is not None:
        chosen: dict[str, Any] = {
            name: getattr(training, name) for name in type(training).model_fields if getattr(training, name) is not None
        }
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            if name in chosen:
                chosen[name] = float(chosen[name])
        chosen["callbacks"] = tuple(training.callbacks or ())
        if training.max_steps is not None:
            chosen["epochs"] = None
        base = replace(base, **chosen)
    evaluation, checkpoint, sample, output = spec.evaluation, spec.checkpoint, spec.sample, spec.output
    return Settings(
        task=task,
        model=spec.model,
        dataset=dataset,
        training=base,
        evaluation=EvaluationSettings(evaluation.every_steps if evaluation else None),
        checkpoint=CheckpointSettings(
            every_steps=checkpoint.every_steps if checkpoint else None,
            every_minutes=(checkpoint.every_minutes if checkpoint else None) or 10,
            keep=(checkpoint.keep if checkpoint else None) or 2,
        ),
        sample=SampleSettings(
            prompts=tuple((sample.prompts if sample else None) or ()),
            max_new_tokens=(sample.max_new_tokens if sample else None) or 100,
            top_k=(sample.top_k if sample else None) or _DEFAULT_TOP_K[task],
            top_p=_number(sample.top_p if sample else None, 0.95),
        ),
        output=OutputSettings(
            uri=output.uri if output else None,
            weights=(output.weights if output else None) or Weights.LAST,
            push_to_hub=output.push_to_hub if output else None,
        ),
        gpus=(spec.resources.gpus_per_node if spec.resources else None) or 0,
    )


def _number(text: str | None, default: float) -> float:
    return default if text is None else float(text)
