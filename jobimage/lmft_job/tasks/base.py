"""The questions in which tasks differ: head, targets, tokenizer, prompts and answers, words.

What a manifest may set for a task, and its default numbers, are in :mod:`lmft_api.tasks`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task, takes

IGNORED = -100
"""Label of a token or row that the loss passes over."""


class TaskType(ABC):
    """A task; the attributes are the same for all runs of it."""

    name: ClassVar[Task]
    title: ClassVar[str]
    """In running text."""

    auto_class: ClassVar[str]
    """The class of transformers that makes a model with its head."""
    shift: ClassVar[int] = 0
    """How many places further on the label of a token's logits is: 1 where each token predicts the next."""
    unfit_types: ClassVar[frozenset[str]] = frozenset()
    """Model types whose head of this class does not learn the task, to be refused before anything is downloaded."""
    unfit_reason: ClassVar[str] = ""
    """What is wrong with their head."""
    advice: ClassVar[str]
    """What model to choose instead of one that does not learn it."""

    new_tokens: ClassVar[int] = 0
    """Tokens that an answer adds to its prompt, at least."""
    drawn: ClassVar[bool] = False
    """Whether an answer is drawn at random, so that another seed gives another."""
    pipeline: ClassVar[str]
    """Name of the transformers pipeline that answers prompts, which is the hub's tag too."""
    example: ClassVar[str]
    """A prompt for where a run has none."""

    remarks: ClassVar[tuple[str, ...]] = ()
    """What a careful reader has to know about the figures."""
    limitations: ClassVar[tuple[str, ...]] = ()
    """What a model of it should not be trusted with."""

    @property
    def packed(self) -> bool:
        """Whether texts are joined and cut into blocks of one length; otherwise each is a padded row of its own."""
        return takes(self.name, "block_size")

    @property
    def masked(self) -> bool:
        """Whether some of the tokens are masked, and these alone are targets: a row may have none."""
        return takes(self.name, "mask_probability")

    @property
    def has_labels(self) -> bool:
        """Whether a row has a label from the data, for which the model gets a head that may begin fresh."""
        return takes(self.name, "label_field")

    @property
    def causal(self) -> bool:
        """Whether a token is predicted from those before it, so that the model can continue a text."""
        return self.shift > 0

    def misfit(self, model_type: str, wrong: str) -> str:
        """The problem with a type of model that does not learn the task, with what to do."""
        return f"spec.task: {self.name} does not work with a model of type {model_type}; {wrong}. {self.advice}"

    def targets_by_row(self, labels: Any) -> Any:
        """Number of targets of each row, which the loss is the mean over; a tensor (batch,) on the labels' device."""
        return (labels[:, self.shift :] != IGNORED).sum(-1)

    def tokenizer_problem(self, tokenizer: Any) -> str | None:
        """Which special token the task needs and this tokenizer lacks, with what to use instead."""
        return None

    def prompt(self, text: str, tokenizer: Any) -> str:
        """A prompt of the manifest as this tokenizer writes it."""
        return text

    def prompt_problem(self, prompt: str, tokenizer: Any | None) -> str | None:
        """What is wrong with a prompt; the tokenizer is None while it is yet to be trained."""
        return None

    def prompt_ids(self, prompt: str, tokenizer: Any) -> list[int]:
        """Ids of a prompt as the tokenizer writes it, with the special tokens that belong around it."""
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids

    @abstractmethod
    def answer(self, model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
        """The model's answer to a prompt.

        Args:
            model: in evaluation mode.
            tokenizer: of the model.
            inputs: tensors of (1, tokens) by name, on the model's device.
            sample: how to draw.
            limit: tokens that fit into the model; None for no limit.
        """

    def call(self, prompt: str, settings: Mapping[str, Any]) -> str:
        """Python that asks ``pipe``, the task's pipeline; settings are the report's."""
        return f"pipe({prompt!r})"
