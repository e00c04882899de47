"""Pretrained models that are made in no time, as folders: what adapters are trained on."""

from pathlib import Path
from typing import Any

import torch
import transformers
from support.forked import TEXTS
from support.tiny_models import SMALL

from lmft_api.tasks import Task
from lmft_job.models import tokenizers

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 48},
    "llama": {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 1},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 8},
    "bert": dict(SMALL),
    "roberta": dict(SMALL),
}
CLASSES = {
    Task.CAUSAL_LM: "AutoModelForCausalLM",
    Task.MASKED_LM: "AutoModelForMaskedLM",
    Task.SEQUENCE_CLASSIFICATION: "AutoModelForSequenceClassification",
}


def save_base(
    folder: Path,
    kind: str,
    task: Task = Task.CAUSAL_LM,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **settings: Any,
) -> str:
    """Make a model with its tokenizer in a folder; its weights are large enough for its answers to differ.

    Returns:
        Its address.
    """
    tokenizer = tokenizers.train(iter([TEXTS]), 300, Task.MASKED_LM if task != Task.CAUSAL_LM else task)
    config = transformers.AutoConfig.for_model(
        kind, **{**CONFIGS[kind], **settings}, vocab_size=len(tokenizer), initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformers.set_seed(seed)
    model = getattr(transformers, CLASSES[task]).from_config(config).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder.as_uri()
