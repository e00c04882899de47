"""Sequence classification: a label for each text."""

from typing import Any

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job.tasks.base import IGNORED, TaskType


class SequenceClassification(TaskType):
    """A model that labels texts."""

    name = Task.SEQUENCE_CLASSIFICATION
    title = "sequence classification"
    auto_class = "AutoModelForSequenceClassification"
    advice = "Choose a type such as bert or distilbert"
    pipeline = "text-classification"
    example = "What a pleasant surprise!"

    def targets_by_row(self, labels: Any) -> Any:
        """One target for each row."""
        return (labels != IGNORED).long()

    def tokenizer_problem(self, tokenizer: Any) -> str | None:
        """A padding token is required."""
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
            return "spec.model.tokenizer: it has neither a padding nor an end-of-text token to pad rows with."
        return None

    def answer(self, model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
        """The most likely label, with its probability."""
        scores = model(**inputs).logits[0].float().softmax(-1)
        best = int(scores.argmax())
        return f"{model.config.id2label[best]} ({float(scores[best]):.3f})"
