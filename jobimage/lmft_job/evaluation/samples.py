"""Prompts answered by the model, in the same way before and after training. Seeded; does not use the global RNG."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic


def check_prompts(prompts: Sequence[str], tokenizer: Any | None, task: Task, limit: int | None) -> None:
    """Refuse prompts that cannot be answered, all at once, before any expensive step.

    Args:
        prompts: prompts of the manifest.
        tokenizer: tokenizer of the model; None if it is not trained yet, when fewer checks are possible.
        task: task of the run.
        limit: tokens that fit into the model; None for no limit.

    Raises:
        InvalidError: a prompt is too long, has no tokens, or does not suit the task.
    """
    kind, problems = tasks.of(task), []
    for index, prompt in enumerate(prompts):
        field = f"spec.sample.prompts[{index}]"
        text = prompt if tokenizer is None else kind.prompt(prompt, tokenizer)
        if wrong := kind.prompt_problem(text, tokenizer):
            problems.append(f"{field}: {wrong}")
            continue
        if tokenizer is None:
            continue
        tokens = len(kind.prompt_ids(text, tokenizer))
        room = None if limit is None else limit - kind.new_tokens
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
    """An answer for each prompt: a continuation, the most likely fills, or a label with its score."""
    kind = tasks.of(task)
    was_training = model.training
    model.eval()
    answers = []
    try:
        with torch.no_grad(), arithmetic.context():
            for prompt in sample.prompts:
                text = kind.prompt(prompt, tokenizer)
                length = len(kind.prompt_ids(text, tokenizer))
                encoded = tokenizer(text, return_tensors="pt").to(arithmetic.device)
                encoded.pop("token_type_ids", None)
                inputs = {name: values[:, :length] for name, values in encoded.items()}
                # The seed is set for each prompt, so an answer does not depend on earlier prompts.
                devices = [arithmetic.device] if arithmetic.device.type == "cuda" else []
                with torch.random.fork_rng(devices=devices):
                    torch.manual_seed(seed)
                    answers.append(kind.answer(model, tokenizer, inputs, sample, limit))
                beat()
    finally:
        model.train(was_training)
    return answers
