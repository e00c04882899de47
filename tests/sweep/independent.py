"""The figures of a published model once more, by plain transformers: of the job's code only the masks are used."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from lmft_api.tasks import Task
from lmft_job.data.masking import MaskedBlocks, Masker
from lmft_job.models.weights import load_weights, restore

AUTO = {
    "CausalLM": transformers.AutoModelForCausalLM,
    "MaskedLM": transformers.AutoModelForMaskedLM,
    "SequenceClassification": transformers.AutoModelForSequenceClassification,
}


def figures(task: str, model: Path, data: Path, seed: int) -> dict[str, float]:
    """Mean loss, in nats, over the held-out targets, computed in FP64 from the logits of single rows; and accuracy.

    Args:
        task: of the run.
        model: its published folder.
        data: its prepared data set.
        seed: decides the masks.

    Raises:
        AssertionError: the folder does not hold exactly the model's weights.
    """
    loaded, info = AUTO[task].from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    for name, keys in info.items():
        assert not keys, f"{name}: {sorted(map(str, keys))[:3]}"
    loaded.eval()
    losses: list[torch.Tensor] = []
    right: list[bool] = []
    with torch.no_grad():
        for inputs, targets in _rows(task, model, data, seed):
            logits = loaded(**inputs).logits[0].double()
            if task == "CausalLM":
                logits = logits[-len(targets) :][:-1]
                targets = targets[1:]
            if task == "SequenceClassification":
                logits = logits[None]
                right.append(int(logits.argmax()) == int(targets[0]))
            chosen = targets != -100
            losses.append(torch.nn.functional.cross_entropy(logits[chosen], targets[chosen], reduction="none"))
    found = {"loss": float(torch.cat(losses).mean())}
    if right:
        found["accuracy"] = sum(right) / len(right)
    return found


def require_the_same_again(task: str, model: Path, checkpoint: Path) -> None:
    """The job's own two ways to read weights find the published ones: to fine-tune them, and to resume.

    Raises:
        AssertionError: they do not.
    """
    published = AUTO[task].from_pretrained(model, dtype=torch.float32).state_dict()
    config = transformers.AutoConfig.from_pretrained(model)
    found = load_weights(AUTO[task], model, config, Task(task), "spec.model.name")
    assert not found.notes, found.notes
    resumed = AUTO[task].from_config(config, dtype=torch.float32)
    restore(resumed, checkpoint)
    for what, weights in (("fine-tuned", found.model.state_dict()), ("resumed", resumed.state_dict())):
        other = [name for name, value in published.items() if not torch.equal(value, weights[name])]
        assert not other, f"{what} with other weights: {other[:3]}"


def _rows(task: str, model: Path, data: Path, seed: int) -> Any:
    """Inputs of one row, and its targets, 1-D."""
    table = pa.ipc.open_stream(pa.memory_map(str(data / "eval.arrow"))).read_all()
    masked = None
    if task == "MaskedLM":
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        masker = Masker(seed, 0.15, len(tokenizer), tokenizer.mask_token_id, tokenizer.all_special_ids)
        masked = MaskedBlocks(data / "eval.arrow", masker, fixed=True)
    for number, row in enumerate(table.to_pylist()):
        ids = torch.tensor(row["input_ids"])
        if masked is not None:
            item = masked[number]
            yield {"input_ids": torch.tensor(item["input_ids"])[None]}, torch.tensor(item["labels"])
        elif task == "CausalLM":
            yield {"input_ids": ids[None]}, ids
        else:
            inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
            yield inputs, torch.tensor([row["labels"]])
