"""Prompts answered by the model, in the same way before and after training. Seeded; does not use the global RNG."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.data.chat.asking import prompt_tokens
from lmft_job.data.chat.template.rendering import ChatTemplate, TemplateRefusedError
from lmft_job.data.chat.template.settled import special_tokens
from lmft_job.data.chat.template.turns import special_within
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic


def check_prompts(
    sample: SampleSettings, tokenizer: Any | None, task: Task, limit: int | None, chat: ChatTemplate | None = None
) -> None:
    """Refuse prompts that cannot be answered, all at once, before any expensive step.

    Args:
        sample: prompts and conversations of the manifest.
        tokenizer: tokenizer of the model; None if it is not trained yet, when fewer checks are possible.
        task: task of the run.
        limit: tokens that fit into the model; None for no limit.
        chat: template of the conversations; None where the model continues text.

    Raises:
        InvalidError: a prompt is too long, has no tokens, or does not suit the task.
    """
    kind, problems = tasks.of(task), []
    room = None if limit is None else limit - kind.new_tokens
    for field, messages in _conversations(sample) if chat is not None else ():
        if (inside := special_within(messages, special_tokens(tokenizer))) is not None:
            problems.append(f"{field}: contains {inside!r}, which the tokenizer reads as a special token; remove it")
            continue
        try:
            tokens = len(prompt_tokens(chat, tokenizer, messages))  # type: ignore[arg-type]
        except TemplateRefusedError as error:
            problems.append(f"{field}: the chat template refuses it: {error}")
            continue
        if room is not None and tokens > room:
            problems.append(f"{field}: has {tokens} tokens, and the model takes {room}; shorten it")
    for index, prompt in enumerate(sample.prompts if chat is None else ()):
        field = f"spec.sample.prompts[{index}]"
        text = prompt if tokenizer is None else kind.prompt(prompt, tokenizer)
        if wrong := kind.prompt_problem(text, tokenizer):
            problems.append(f"{field}: {wrong}")
            continue
        if tokenizer is None:
            continue
        tokens = len(kind.prompt_ids(text, tokenizer))
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
    chat: ChatTemplate | None = None,
) -> list[str]:
    """An answer for each prompt: a continuation, the most likely fills, or a label with its score.

    With a chat template: the assistant's answer to each prompt, as a turn of the user, and to each conversation.
    """
    kind = tasks.of(task)
    was_training = model.training
    model.eval()
    answers = []
    try:
        with torch.no_grad(), arithmetic.context():
            for inputs in _inputs(sample, tokenizer, task, chat):
                inputs = {name: values.to(arithmetic.device) for name, values in inputs.items()}
                # The seed is set for each prompt, so an answer does not depend on earlier prompts.
                devices = [arithmetic.device] if arithmetic.device.type == "cuda" else []
                with torch.random.fork_rng(devices=devices):
                    torch.manual_seed(seed)
                    answers.append(kind.answer(model, tokenizer, inputs, sample, limit))
                beat()
    finally:
        model.train(was_training)
    return answers


def _conversations(sample: SampleSettings) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Each field of the manifest with the conversation to answer; a prompt is a turn of the user."""
    for index, prompt in enumerate(sample.prompts):
        yield f"spec.sample.prompts[{index}]", [{"role": "user", "content": prompt}]
    for index, messages in enumerate(sample.conversations):
        yield f"spec.sample.conversations[{index}]", list(messages)


def _inputs(
    sample: SampleSettings, tokenizer: Any, task: Task, chat: ChatTemplate | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors of (1, tokens) by name for each answer."""
    kind = tasks.of(task)
    for _, messages in _conversations(sample) if chat is not None else ():
        ids = torch.tensor([prompt_tokens(chat, tokenizer, messages)])  # type: ignore[arg-type]
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for prompt in sample.prompts if chat is None else ():
        text = kind.prompt(prompt, tokenizer)
        length = len(kind.prompt_ids(text, tokenizer))
        encoded = tokenizer(text, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        yield {name: values[:, :length] for name, values in encoded.items()}
