"""Prompts are gone on from where they end, whatever a tokenizer puts after a text."""

from typing import Any

import pytest
from tokenizers import processors

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.models import tokenizers


@pytest.fixture
def tokenizer() -> Any:
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.MASKED_LM)


@pytest.mark.parametrize(
    ("template", "before"), [("<s> $A </s>", [0]), ("$A </s>", []), ("<s> <s> $A </s> </s>", [0, 0]), ("<s> $A", [0])]
)
def test_an_end_token_is_no_part_of_a_prompt(tokenizer: Any, template: str, before: list[int]) -> None:
    special = [("<s>", 0), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    plain = tokenizer("the river", add_special_tokens=False)["input_ids"]
    assert tasks.of(Task.CAUSAL_LM).prompt_ids("the river", tokenizer) == [*before, *plain]
    # the other tasks answer about the whole text
    assert tasks.of(Task.MASKED_LM).prompt_ids("the river", tokenizer) == tokenizer("the river")["input_ids"]
    # what a person writes stays
    written = tasks.of(Task.CAUSAL_LM).prompt_ids("the river</s>", tokenizer)
    assert written == [*before, *plain, 2]
