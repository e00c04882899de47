"""LoRA of 1.1B parameters on conversations of varied length: ours, packed, beside TRL's SFTTrainer with packing.

    python bench/gpu/lora.py        # --tiny for a CPU; LMFT_BENCH_TRL names a folder that holds TRL

One epoch each over the same conversations (the same ids, and the same tokens that carry loss), 4 rows of 2,048 tokens a
step, the base in BF16 on a GPU with weights drawn from its configuration, LoRA of rank 16 on all linear layers, no
dropout, no gradient checkpointing. Compared: tokens/s of the steps after the first five, padding not counted, and the
loss that our evaluation finds on the same held-out conversations.
"""

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from attempts import attempt
from commands import judge, leave_out, say
from loops import SHAPES

from lmft_api.tasks import Task
from lmft_job import recipe
from lmft_job.data.isolated.collate import starts_of
from lmft_job.models import tokenizers
from lmft_job.observers.events import Observer, StepDone

sys.path.insert(0, str(Path(__file__).parents[1]))
from sft import TEMPLATE, train_peer

RATE, WARM, NEVER = 2e-4, 5, 1_000_000
MISSING = "TRL is not installed here: pip install --target FOLDER --no-deps trl, and name the folder in LMFT_BENCH_TRL"


class Compared(BaseException):
    """Both have trained: what a run does after training is not measured."""


class Marks(Observer):
    """When steps were done; at the first that counts and the last the device is waited for."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, done: StepDone) -> None:
        """A step was asked for."""
        if torch.cuda.is_available() and done.step in (WARM, done.total):
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def conversations(path: Path, count: int, longest: int) -> None:
    """Questions with answers of varied length: words of few sentences, from a generator."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    with path.open("w") as file:
        for _ in range(count):
            size = min(longest, int(draw.lognormvariate(5, 1)) + 4)
            answer = " ".join(draw.choices(words, weights=range(400, 0, -1), k=size))
            question = " ".join(draw.choices(words, k=draw.randint(3, 30)))
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def base(folder: Path, data: Path, shape: Any, device: torch.device) -> str:
    """A model with its tokenizer; its address."""
    texts = [" ".join(json.loads(line).values()) for line in data.read_text().splitlines()[:200]]
    tokenizer = tokenizers.train(iter([texts]), 400 if shape.vocabulary < 2000 else 2000, Task.CAUSAL_LM)
    model = shape.model(device).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder.as_uri()


def conversations_of(rows: Any) -> list[dict[str, list[int]]]:
    """Ids and labels of each conversation of some packs."""
    found = []
    for index in range(len(rows)):
        row = rows[index]
        for start, length in zip(starts_of(row["lengths"]), row["lengths"], strict=True):
            found.append({name: row[name][start : start + length].tolist() for name in ("input_ids", "labels")})
    return found


def beside_trl(address: str, length: int, rows: int, *, tiny: bool) -> Any:
    """In place of the recipe's training: ours, then TRL's."""
    ours, trl = recipe.train, os.environ.get("LMFT_BENCH_TRL")

    def both(job: Any, resumed: Any) -> Any:
        counted: list[int] = []

        def collate(items: list[Any]) -> Any:
            counted.append(sum(int(item["lengths"].sum()) for item in items))
            return job.collate(items)

        marks = Marks()
        ours(replace(job, observer=marks, collate=collate), resumed)
        steps = len(marks.times)
        rate = sum(counted[WARM:steps]) / (marks.times[-1] - marks.times[WARM - 1])
        loss = job.evaluate(lambda: None).figures.loss
        listed = conversations_of(job.train_rows)
        used = job.acceleration.described(job.model, job.arithmetic)
        say(part="lora", loop="ours", tokens_per_s=round(rate), steps=steps, conversations=len(listed),
            eval_loss=loss, used=used)  # fmt: skip
        if trl is None and find_spec("trl") is None:
            for row, value in (("lora/rate", round(rate)), ("lora/loss", loss)):
                leave_out(row, MISSING, ours=value)
            raise Compared
        cuda = torch.cuda.is_available()
        attention = "flash_attention_2" if cuda and find_spec("flash_attn") else "sdpa"
        model = transformers.AutoModelForCausalLM.from_pretrained(
            address.removeprefix("file://"), dtype="bfloat16" if cuda else "float32", attn_implementation=attention
        )
        peer = train_peer(
            trl, model, listed, job.tokenizer, warm=WARM,
            output_dir=str(job.folder / "trl"), num_train_epochs=1, per_device_train_batch_size=rows,
            learning_rate=RATE, use_cpu=not cuda, bf16=cuda, packing=True, max_length=length,
        )  # fmt: skip
        theirs = replace(job, model=peer["model"].to(job.arithmetic.device)).evaluate(lambda: None).figures.loss
        import trl as package

        version = package.__version__
        say(part="lora", loop="trl", tokens_per_s=round(peer["rate"]), steps=len(peer["losses"]), eval_loss=theirs,
            attention=attention, trl=version)  # fmt: skip
        figures = {"ours": round(rate), "peer": round(peer["rate"]), "unit": "tokens/s"}
        judge("lora/rate", round(rate / peer["rate"], 3), tiny=tiny, trl=version, **figures)
        judge("lora/loss", loss / theirs - 1, tiny=tiny, ours=loss, peer=theirs)
        raise Compared

    return both


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    shape = SHAPES["llama-1.1b"]
    length, count = (128, 120) if tiny else (shape.block, 1200)
    if tiny:
        shape = replace(shape.smaller(), block=length)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(name) / "questions.jsonl"
        conversations(data, count, length // 5)
        address = base(folder / "base", data, shape, device)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        spec = {
            "model": {"name": address},
            "dataset": {
                "files": [data.as_uri()], "format": "json", "promptField": "question", "completionField": "answer",
                "maxLength": length, "chatTemplate": {"text": TEMPLATE}, "testPercent": 5,
            },
            "training": {"epochs": 1, "perDeviceBatchSize": shape.rows, "learningRate": str(RATE),
                         "adapter": {"dropout": "0"}, "gradientCheckpointing": False},
            "evaluation": {"everySteps": NEVER}, "checkpoint": {"everySteps": NEVER},
            "resources": {"gpusPerNode": 1 if device.type == "cuda" else 0},
            "output": {"uri": (folder / "runs").as_uri()},
        }  # fmt: skip
        recipe.train = beside_trl(address, length, shape.rows, tiny=tiny or device.type != "cuda")
        with suppress(Compared):
            attempt(spec, folder, "lora")


if __name__ == "__main__":
    main()
