"""Causal language modelling: each token of a block is predicted from the tokens before it."""

from collections.abc import Mapping
from typing import Any

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job.tasks.base import TaskType

_NEW_TOKENS = 20


class CausalLM(TaskType):
    """A model that continues text."""

    name = Task.CAUSAL_LM
    title = "causal language modeling"
    auto_class = "AutoModelForCausalLM"
    shift = 1
    # Their head scores each token against itself, or sees it; the rehearsal finds those that are not listed.
    unfit_types = frozenset({
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "cpmant", "marian", "mbart", "mvp", "pegasus",
        "plbart", "prophetnet", "trocr", "whisper", "xlm", "xlnet",
    })  # fmt: skip
    unfit_reason = "its head does not learn to predict the next token"
    advice = "Choose a decoder such as gpt2 or llama"
    new_tokens = 1
    drawn = True
    pipeline = "text-generation"
    example = "Once upon a time"
    remarks = (
        "Texts are packed: joined and cut into blocks, so attention can reach from one text into the one before it.",
    )
    limitations = ("It writes fluent text that may be wrong or offensive.",)

    def prompt_ids(self, prompt: str, tokenizer: Any) -> list[int]:
        """No special tokens after the text, which is to be continued from there.

        A tokenizer may end every text with its end token, after which a model begins another text.
        """
        ids = super().prompt_ids(prompt, tokenizer)
        plain: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if not plain:
            return ids
        for start in range(len(ids) - len(plain) + 1):
            if ids[start : start + len(plain)] == plain:
                return ids[: start + len(plain)]
        return ids

    def answer(self, model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
        """A continuation, without the prompt."""
        length = inputs["input_ids"].shape[1]
        output = model.generate(
            **inputs,
            do_sample=True,
            max_new_tokens=sample.max_new_tokens if limit is None else min(sample.max_new_tokens, limit - length),
            top_k=sample.top_k,
            top_p=sample.top_p,
            pad_token_id=tokenizer.pad_token_id,
            # Trainer disables the cache in the configuration, which would make generation quadratic.
            use_cache=True,
        )
        return str(tokenizer.decode(output[0, length:], skip_special_tokens=True)).strip()

    def call(self, prompt: str, settings: Mapping[str, Any]) -> str:
        """With a length: the pipeline's own default may exceed a small model's number of positions."""
        asked: Any = [{"role": "user", "content": prompt}] if "dataset.train_on" in settings else prompt
        return f"pipe({asked!r}, max_new_tokens={settings.get('sample.max_new_tokens', _NEW_TOKENS)})"
