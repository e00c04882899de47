"""Evaluation with the loss of every row (for standard errors) against one with the mean alone: CPU seconds and ratio.

OMP_NUM_THREADS=1 python bench/evaluation.py
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import transformers

from lmft_api.tasks import Task
from lmft_job.evaluation.held_out import Arithmetic, evaluate_held_out

ROWS, TOKENS, REPEATS = 16, 128, 5
GPT2 = {"n_layer": 3, "n_head": 6, "n_embd": 384}
SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 256, "vocab_size": 8000}
ROBERTA = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
MODELS: list[tuple[str, Task, str, dict[str, Any]]] = [
    ("gpt2, 3 layers of 384, 50,257 tokens", Task.CAUSAL_LM, "gpt2", GPT2),
    ("gpt2, 4 layers of 256, 8,000 tokens", Task.CAUSAL_LM, "gpt2", SMALL),
    ("gpt2, 124M", Task.CAUSAL_LM, "gpt2", {}),
    ("roberta, 4 layers of 256, 50,265 tokens", Task.MASKED_LM, "roberta", {**ROBERTA, "vocab_size": 50265}),
]


class _MeanAlone:
    @staticmethod
    def of(logits: Any, labels: Any, task: Task) -> None:
        """No losses of rows."""


@contextmanager
def mean_alone(model: Any, task: Task) -> Iterator[Any]:
    """In place of :func:`lmft_job.evaluation.likelihood.recorded`."""
    yield _MeanAlone


def seconds(model: Any, task: Task, *, rows: bool) -> float:
    """CPU time of one evaluation."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (ROWS, TOKENS), generator=draw)
    labels = ids.clone()
    if task == Task.MASKED_LM:
        labels[torch.rand(ids.shape, generator=draw) > 0.15] = -100
    data = [{"input_ids": one, "labels": other} for one, other in zip(ids, labels, strict=True)]

    def collate(some: list[Any]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([row[name] for row in some]) for name in some[0]}

    began = time.process_time()
    options = {"batch_size": 8, "arithmetic": Arithmetic(torch.device("cpu"))}
    if rows:
        evaluate_held_out(model, data, collate, task, **options)
    else:
        with patch("lmft_job.evaluation.held_out.recorded", mean_alone):
            evaluate_held_out(model, data, collate, task, **options)
    return time.process_time() - began


def main() -> None:
    """Interleaved, the least of each."""
    for name, task, kind, given in MODELS:
        factory = transformers.AutoModelForMaskedLM if task == Task.MASKED_LM else transformers.AutoModelForCausalLM
        model = factory.from_config(transformers.AutoConfig.for_model(kind, **given)).eval()
        seconds(model, task, rows=True)
        pairs = [(seconds(model, task, rows=False), seconds(model, task, rows=True)) for _ in range(REPEATS)]
        mean, with_rows = map(min, zip(*pairs, strict=True))
        print(f"{name:42} mean {mean:.3f} s, with rows {with_rows:.3f} s, ratio {with_rows / mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
