"""The tasks: their names, which fields of a manifest each accepts, and its default numbers.

Sources of the numbers: the Hugging Face guides "Causal language modeling", "Masked language modeling" and the
quicktour's text classification with Trainer. What a task means for models, rows and reports is in ``lmft_job.tasks``.
"""

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What the model learns."""

    CAUSAL_LM = "CausalLM"
    MASKED_LM = "MaskedLM"
    SEQUENCE_CLASSIFICATION = "SequenceClassification"


DEFAULT_TASK = Task.CAUSAL_LM
"""Task of a manifest that names none."""


@dataclass(frozen=True, kw_only=True)
class TaskDefaults:
    """Defaults of one task. A field of ``spec.dataset`` whose default is None is refused for this task.

    Attributes:
        aliases: other names for the task, for the hint about an unknown name.
        starter: the guide's model, proposed where none is named.
        epochs: passes over the training data.
        weight_decay: decoupled weight decay.
        top_k: tokens to sample from, or fills to show.
        block_size: tokens in a block; None where each text is a row of its own, padded to the longest in its batch.
        isolate_documents: whether documents of a block do not see each other.
        mask_probability: share of the tokens to mask.
        label_field: dotted path to the label.
        conversations: whether rows may be conversations (``messagesField``, ``promptField``).
        figures: names of the figures that are measured (:mod:`lmft_api.figures`).
    """

    aliases: tuple[str, ...]
    starter: str
    epochs: int
    weight_decay: float
    top_k: int
    block_size: int | None = None
    isolate_documents: bool | None = None
    mask_probability: float | None = None
    label_field: str | None = None
    conversations: bool = False
    figures: tuple[str, ...] = ("perplexity", "eval_loss")


TASKS = {
    Task.CAUSAL_LM: TaskDefaults(
        aliases=("clm", "causal", "text-generation", "language-modeling", "sft", "gpt", "pretraining"),
        starter="distilbert/distilgpt2",
        epochs=3,
        weight_decay=0.01,
        top_k=50,
        block_size=128,
        isolate_documents=False,
        conversations=True,
    ),
    Task.MASKED_LM: TaskDefaults(
        aliases=("mlm", "masked", "fill-mask"),
        starter="distilbert/distilroberta-base",
        epochs=3,
        weight_decay=0.01,
        top_k=3,
        block_size=128,
        mask_probability=0.15,
    ),
    Task.SEQUENCE_CLASSIFICATION: TaskDefaults(
        aliases=("text-classification", "classification", "sentiment-analysis", "seq_cls", "classifier"),
        starter="distilbert/distilbert-base-uncased",
        epochs=2,
        weight_decay=0.0,
        top_k=50,
        label_field="label",
        figures=("accuracy", "eval_loss"),
    ),
}


def takes(task: Task, attribute: str) -> bool:
    """Whether a task accepts a field of ``spec.dataset``, given by its Python name: ``takes(task, "block_size")``."""
    return getattr(TASKS[task], attribute) is not None
