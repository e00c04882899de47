"""Estimates of memory against what a GPU really allocates at most, on ten shapes.

    python bench/gpu/memory.py          # --tiny for a CPU, which has no figure to compare with: it shows that it runs

Each shape trains two steps by our own loop, with the acceleration and the checkpointed layers that it names; printed
are the estimate and ``max_memory_allocated``, without the driver's share, which torch does not count.
"""

import argparse
import gc
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from commands import judge, leave_out, say
from loops import SHAPES, NoUploads, Shape

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec import Compile
from lmft_api.spec.resolved import resolve
from lmft_api.tasks import Task
from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockRows, BlockWriter, stack_blocks
from lmft_job.memory.plan import plan_of
from lmft_job.memory.trial.trials import Trials
from lmft_job.models.device import arithmetic_for
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.training.acceleration.selection import choose_acceleration
from lmft_job.training.batch import ALL_LAYERS, NO_CHECKPOINTING, Batch, Checkpointing
from lmft_job.training.history import TrainingHistory
from lmft_job.training.loop import TrainingInputs, TrainingLoop
from lmft_job.training.trainer import build_trainer

STEPS = 2
_GPT, _LLAMA = SHAPES["gpt2-124m"], replace(SHAPES["llama-1.1b"], steps=1)


@dataclass(frozen=True)
class Case:
    """A shape and how it is trained."""

    name: str
    shape: Shape
    checkpointing: Checkpointing = NO_CHECKPOINTING
    precision: str = "BF16"
    optimizer: str = "AdamW"


CASES = (
    Case("gpt2", _GPT),
    Case("gpt2, 8 x 128", SHAPES["tutorial"]),
    Case("gpt2, FP32", replace(_GPT, rows=8), precision="FP32"),
    Case("gpt2, all layers checkpointed", replace(_GPT, rows=32), Checkpointing(ALL_LAYERS)),
    Case("gpt2, 6 of 12 layers checkpointed", _GPT, Checkpointing(6)),
    Case("gpt2, Adafactor", _GPT, optimizer="Adafactor"),
    Case("llama 1.1B", replace(_LLAMA, rows=2)),
    Case("llama 1.1B, 16 of 22 layers checkpointed", _LLAMA, Checkpointing(16)),
    Case("llama 1.1B, 16,384 tokens, all", replace(_LLAMA, rows=1, block=16384), Checkpointing(ALL_LAYERS)),
    Case("llama 1.1B, 32,768 tokens, all, offloaded", replace(_LLAMA, rows=1, block=32768),
         Checkpointing(ALL_LAYERS, offload=True)),
)  # fmt: skip


class _OnlySteps(transformers.TrainerCallback):
    """Neither saves nor evaluates."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is done."""
        control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All steps are done."""
        control.should_save = control.should_evaluate = False


def measured(case: Case, device: torch.device) -> tuple[int, int | None, list[str]]:
    """Bytes that are predicted, bytes at the peak (None on a CPU), and what was used."""
    shape = case.shape
    spec = {
        "model": {"fromConfig": {"model_type": shape.family}, "tokenizer": {"trainVocabSize": 256}},
        "dataset": {"builtin": "PythonDocs", "blockSize": shape.block},
        "training": {"maxSteps": STEPS, "perDeviceBatchSize": shape.rows, "optimizer": case.optimizer,
                     "precision": case.precision if device.type == "cuda" else "FP32"},
        "resources": {"gpusPerNode": 1},
    }  # fmt: skip
    settings = resolve(parse_spec(spec))
    model = shape.model(device)
    arithmetic = arithmetic_for(settings, device)
    chosen = choose_acceleration(
        model, Task.CAUSAL_LM, arithmetic, block_size=shape.block, tokens=shape.rows * shape.block, steps=STEPS,
        wanted=Compile.OFF, own_loss=False, checkpointing=case.checkpointing,
    )  # fmt: skip
    plan = replace(plan_of(settings, shape.block), checkpointing=case.checkpointing, fused_loss=chosen.fused)
    found = Trials(shape.config()).moments(plan)
    with tempfile.TemporaryDirectory() as name:
        with BlockWriter(Path(name) / "rows.arrow", shape.block, shape.vocabulary) as writer:
            ids = torch.randint(3, shape.vocabulary, (STEPS * shape.rows * shape.block,))
            writer.add(ids.numpy())
        rows = BlockRows(Path(name) / "rows.arrow")
        job = TrainingInputs(
            settings=settings, model=model, tokenizer=None, train_rows=rows, eval_rows=rows,
            collate=chosen.collate(stack_blocks, shape.rows), arithmetic=arithmetic, batch=Batch(shape.rows),
            folder=Path(name), uploads=NoUploads(), interrupt=Interrupt(), observer=Observer(),
            callbacks=[_OnlySteps()], acceleration=chosen,
        )  # fmt: skip
        trainer = build_trainer(job, TrainingLoop(job, TrainingHistory()))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with chosen.training(model):
            trainer.train()
    used = chosen.described(model, arithmetic)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return max(found.forward.total, found.backward.total), peak, used


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    quiet_transformers()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in CASES:
        if tiny:
            case = replace(case, shape=case.shape.smaller())
        guess, truth, used = measured(case, device)
        predicted = round(guess / 2**20, 1)
        if truth is None:
            say(part="memory", case=case.name, predicted_mib=predicted, used=used)
            leave_out("memory/estimate", "a CPU does not count what is allocated", case=case.name)
        else:
            error = round(guess / truth - 1, 4)
            figures = {"ours": predicted, "peer": round(truth / 2**20, 1), "unit": "MiB", "error": error}
            judge("memory/estimate", abs(error), tiny=tiny, case=case.name, used=used, **figures)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
