"""What differs between tasks: head, targets, tokenizer, prompts, answers and texts.

The settings allowed for a task, and its default values, are in :mod:`lmft_api.tasks`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task, takes

IGNORED = -100
"""Label of a token or row that the loss ignores."""


class TaskType(ABC):
    """A task; the attributes are the same for all runs of it."""

    name: ClassVar[Task]
    title: ClassVar[str]
    """Name of the task within a sentence."""

    auto_class: ClassVar[str]
    """The transformers class that builds a model with its head."""
    shift: ClassVar[int] = 0
    """Offset from a token's logits to the label they predict: 1 if each token predicts the next."""
    unfit_types: ClassVar[frozenset[str]] = frozenset()
    """Model types whose head of this class does not learn the task; refused before anything is downloaded."""
    unfit_reason: ClassVar[str] = ""
    """What is wrong with the head of these model types."""
    advice: ClassVar[str]
    """Which model to choose instead of one that does not learn the task."""

    new_tokens: ClassVar[int] = 0
    """Minimum number of tokens that an answer adds to its prompt."""
    drawn: ClassVar[bool] = False
    """Whether an answer is sampled, so that another seed gives another answer."""
    pipeline: ClassVar[str]
    """Name of the transformers pipeline that answers prompts, which is also the hub's tag."""
    example: ClassVar[str]
    """An example prompt for runs without prompts."""

    remarks: ClassVar[tuple[str, ...]] = ()
    """What a careful reader should know about the figures."""
    limitations: ClassVar[tuple[str, ...]] = ()
    """What a model of this task should not be trusted with."""

    @property
    def packed(self) -> bool:
        """Whether texts are joined and cut into blocks of one length; otherwise each is a padded row."""
        return takes(self.name, "block_size")

    @property
    def masked(self) -> bool:
        """Whether some tokens are masked, and only these are targets: a row may have none."""
        return takes(self.name, "mask_probability")

    @property
    def has_labels(self) -> bool:
        """Whether rows have labels from the data, for which the model gets a head that may be fresh."""
        return takes(self.name, "label_field")

    @property
    def causal(self) -> bool:
        """Whether a token is predicted from the tokens before it, so that the model can continue a text."""
        return self.shift > 0

    def misfit(self, model_type: str, wrong: str) -> str:
        """The problem with a model type that does not learn the task, with what to do."""
        return f"spec.task: {self.name} does not work with a model of type {model_type}; {wrong}. {self.advice}"

    def targets_by_row(self, labels: Any) -> Any:
        """Number of targets of each row, over which the loss is the mean; a tensor (batch,) on the labels' device."""
        return (labels[:, self.shift :] != IGNORED).sum(-1)

    def tokenizer_problem(self, tokenizer: Any) -> str | None:
        """Which special token the task needs and this tokenizer lacks, with what to use instead; None if none."""
        return None

    def prompt(self, text: str, tokenizer: Any) -> str:
        """A prompt of the manifest in this tokenizer's notation."""
        return text

    def prompt_problem(self, prompt: str, tokenizer: Any | None) -> str | None:
        """What is wrong with a prompt; the tokenizer is None if it is not trained yet."""
        return None

    def prompt_ids(self, prompt: str, tokenizer: Any) -> list[int]:
        """Ids of a prompt, with the special tokens that the tokenizer adds around it."""
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids

    @abstractmethod
    def answer(self, model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
        """The model's answer to a prompt.

        Args:
            model: in evaluation mode.
            tokenizer: of the model.
            inputs: tensors of (1, tokens) by name, on the model's device.
            sample: sampling settings.
            limit: tokens that fit into the model; None for no limit.
        """

    def call(self, prompt: str, settings: Mapping[str, Any]) -> str:
        """Python code that calls ``pipe``, the task's pipeline; settings are the report's."""
        return f"pipe({prompt!r})"
