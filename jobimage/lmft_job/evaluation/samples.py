"""Prompts answered by the model, the same way before and after training. Seeded; the global RNG is left alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lmft_api.spec import Task
from lmft_api.spec.resolved import SampleSettings
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic

MASK = "<mask>"
"""How a manifest writes the mask, whatever the tokenizer's own is."""


def check_prompts(prompts: Sequence[str], tokenizer: Any | None, task: Task, limit: int | None) -> None:
    """Refuse prompts that cannot be answered, all at once, before anything expensive.

    Args:
        prompts: of the manifest.
        tokenizer: of the model; None while it is yet to be trained, when only masks are looked for.
        task: of the run.
        limit: tokens that fit into the model; None for no limit.

    Raises:
        InvalidError: a prompt is too long, has no tokens, or (MaskedLM) has no mask.
    """
    problems = []
    for index, prompt in enumerate(prompts):
        field = f"spec.sample.prompts[{index}]"
        text = prompt if tokenizer is None else _translated(prompt, tokenizer, task)
        if task == Task.MASKED_LM and (MASK if tokenizer is None else tokenizer.mask_token) not in text:
            problems.append(f"{field}: has no {MASK}; write it where the model is to fill in a word")
            continue
        if tokenizer is None:
            continue
        tokens = len(prompt_ids(text, tokenizer, task))
        # A causal model needs room for at least one new token.
        room = None if limit is None else limit - (task == Task.CAUSAL_LM)
        if tokens == 0:
            problems.append(f"{field}: the tokenizer makes no token of it; write some text")
        elif room is not None and tokens > room:
            problems.append(f"{field}: has {tokens} tokens, and the model takes {room}; shorten it")
    if problems:
        raise InvalidError(problems)


def answer_prompts(
    model: Any,
    tokenizer: Any,
    task: Task,
    sample: SampleSettings,
    *,
    seed: int,
    limit: int | None,
    arithmetic: Arithmetic,
    beat: Callable[[], None] = lambda: None,
) -> list[str]:
    """An answer for each prompt: a continuation, the likeliest fills, or a label with its score."""
    answer = {Task.CAUSAL_LM: _continue, Task.MASKED_LM: _fill, Task.SEQUENCE_CLASSIFICATION: _label}[task]
    was_training = model.training
    model.eval()
    answers = []
    try:
        with torch.no_grad(), arithmetic.context():
            for prompt in sample.prompts:
                text = _translated(prompt, tokenizer, task)
                length = len(prompt_ids(text, tokenizer, task))
                encoded = tokenizer(text, return_tensors="pt").to(arithmetic.device)
                encoded.pop("token_type_ids", None)
                inputs = {name: values[:, :length] for name, values in encoded.items()}
                # Each prompt starts from the seed, so an answer does not depend on the prompts before it.
                devices = [arithmetic.device] if arithmetic.device.type == "cuda" else []
                with torch.random.fork_rng(devices=devices):
                    torch.manual_seed(seed)
                    answers.append(answer(model, tokenizer, inputs, sample, limit))
                beat()
    finally:
        model.train(was_training)
    return answers


def prompt_ids(text: str, tokenizer: Any, task: Task) -> list[int]:
    """Ids of a prompt, special tokens added; nothing after the text for CausalLM, which is to go on from there.

    A tokenizer may close every text with its end token, after which a model begins another text.
    """
    ids: list[int] = tokenizer(text)["input_ids"]
    plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if task != Task.CAUSAL_LM or not plain:
        return ids
    for start in range(len(ids) - len(plain) + 1):
        if ids[start : start + len(plain)] == plain:
            return ids[: start + len(plain)]
    return ids


def _translated(prompt: str, tokenizer: Any, task: Task) -> str:
    return prompt.replace(MASK, tokenizer.mask_token) if task == Task.MASKED_LM else prompt


def _continue(model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
    length = inputs["input_ids"].shape[1]
    new = sample.max_new_tokens if limit is None else min(sample.max_new_tokens, limit - length)
    output = model.generate(
        **inputs,
        do_sample=True,
        max_new_tokens=new,
        top_k=sample.top_k,
        top_p=sample.top_p,
        pad_token_id=tokenizer.pad_token_id,
        # Trainer switches the cache off in the configuration, which would make generation quadratic.
        use_cache=True,
    )
    return str(tokenizer.decode(output[0, length:], skip_special_tokens=True)).strip()


def _fill(model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
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


def _label(model: Any, tokenizer: Any, inputs: Any, sample: SampleSettings, limit: int | None) -> str:
    scores = model(**inputs).logits[0].float().softmax(-1)
    best = int(scores.argmax())
    return f"{model.config.id2label[best]} ({float(scores[best]):.3f})"
