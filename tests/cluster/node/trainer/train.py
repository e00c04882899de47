"""A plain Trainer, as a user's own image may hold it; the callback that transformers brings along reports its progress.

The container's last word is its result, in the words of the status: reason, message, results.
"""

import json
import math
import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, default_data_collator, set_seed

set_seed(7)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (64, 16)).sort(dim=1).values]


def collate(features: list[Any]) -> dict[str, Any]:
    time.sleep(0.06)  # the callback reports every five seconds, and a toy is trained sooner than that
    batch: dict[str, Any] = default_data_collator(features)
    return batch


trainer = Trainer(
    model=GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2)),
    args=TrainingArguments(
        output_dir="/tmp/out", max_steps=180, per_device_train_batch_size=8, learning_rate=3e-3, logging_steps=10,
        eval_strategy="steps", eval_steps=40, save_strategy="no", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=rows[:56],
    eval_dataset=rows[56:],
    data_collator=collate,
)  # fmt: skip
trainer.train()
loss = trainer.evaluate()["eval_loss"]
results = {"evalLoss": f"{loss:.4f}", "perplexity": f"{math.exp(loss):.2f}"}
with open("/dev/termination-log", "w", encoding="utf-8") as file:
    json.dump(
        {"reason": "Completed", "message": f"trained by a world of {trainer.args.world_size}", "results": results}, file
    )
