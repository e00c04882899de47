"""Masked language modelling: some tokens of a block are masked, and predicted from the tokens around them."""

from collections.abc import Mapping
from typing import Any

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job.tasks.base import TaskType

MASK = "<mask>"
"""The mask in a manifest's prompt, whatever the tokenizer's own is."""


class MaskedLM(TaskType):
    """A model that fills in words."""

    name = Task.MASKED_LM
    title = "masked language modeling"
    auto_class = "AutoModelForMaskedLM"
    advice = "Choose an encoder such as bert or roberta"
    pipeline = "fill-mask"
    example = f"The sky is {MASK}."
    remarks = ("The held-out blocks were masked once, with a fixed seed, so every evaluation sees the same masks.",)

    def tokenizer_problem(self, tokenizer: Any) -> str | None:
        """A mask token is required."""
        if tokenizer.mask_token_id is not None:
            return None
        return (
            f"spec.task: {self.name} needs a tokenizer with a mask token, and this one has none. Use a model such as "
            f"distilbert/distilroberta-base, or task {Task.CAUSAL_LM}."
        )

    def prompt(self, text: str, tokenizer: Any) -> str:
        """With the tokenizer's own mask token."""
        return text.replace(MASK, tokenizer.mask_token)

    def prompt_problem(self, prompt: str, tokenizer: Any | None) -> str | None:
        """A prompt needs a mask."""
        if (MASK if tokenizer is None else tokenizer.mask_token) in prompt:
            return None
        return f"has no {MASK}; write it where the model is to fill in a word"

    def answer(self, model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
        """The most likely words for each mask, with their probabilities."""
        logits = model(**inputs).logits[0]
        fills = []
        for position in (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist():
            scores = logits[position].float().softmax(-1)
            best = scores.topk(min(sample.top_k, scores.numel()))
            words = [tokenizer.decode([token]).strip() for token in best.indices.tolist()]
            fills.append(
                ", ".join(f"{word} ({score:.3f})" for word, score in zip(words, best.values.tolist(), strict=True))
            )
        return " | ".join(fills)

    def call(self, prompt: str, settings: Mapping[str, Any]) -> str:
        """With the tokenizer's own mask token."""
        return f"pipe({prompt!r}.replace({MASK!r}, pipe.tokenizer.mask_token))"
