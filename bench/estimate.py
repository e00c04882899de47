"""Predicted memory against a step that is really executed, counted by torch's own tracker.

    python bench/estimate.py            # the 22 configurations, on the CPU; minutes
    python bench/estimate.py gpt2       # those whose name contains it
    python bench/estimate.py --seconds  # how long the refusal of an 8B model takes, with all the changes that it names
    python bench/estimate.py --host     # the memory of a whole process: `lmft run` on the CPU, by /proc; a minute

The prediction is ``lmft estimate``'s: fake tensors, from the configuration alone. Measured is the run's own Trainer
with real weights and rows: two optimiser steps under ``torch.distributed._tools.mem_tracker.MemTracker``, which counts
the storages of living tensors. Memory of the process is another figure: it includes Python, libraries and what the
allocator keeps; ``--host`` measures that. For each configuration a line, at the end the largest deviation.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.distributed._tools.mem_tracker import MemTracker

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec import Precision
from lmft_api.spec.resolved import Settings, resolve
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.attempt.context import quiet_transformers
from lmft_job.memory.estimating import Device, estimator, refusal
from lmft_job.memory.fitting import judge
from lmft_job.memory.parts import GIB
from lmft_job.memory.plan import Plan, plan_of
from lmft_job.memory.trial.trials import Trials
from lmft_job.models.device import Arithmetic
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.training.acceleration.selection import Acceleration
from lmft_job.training.batch import Batch, Checkpointing, planned_checkpointing
from lmft_job.training.history import TrainingHistory
from lmft_job.training.loop import TrainingInputs, TrainingLoop
from lmft_job.training.trainer import build_trainer

MIB = 1 << 20
STEPS = 2
_GPT2 = {"n_embd": 128, "n_layer": 6, "n_head": 4, "vocab_size": 1000}
_LLAMA: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
_LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
_BERT: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A configuration: model, task, batch, checkpointed layers, and what is set in ``spec.training``."""

    name: str
    family: str
    settings: dict[str, Any]
    rows: int = 8
    length: int = 128
    task: Task = Task.CAUSAL_LM
    checkpointed: int = 0
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        return transformers.AutoConfig.for_model(self.family, **self.settings)

    @property
    def checkpointing(self) -> Checkpointing:
        if self.checkpointed:
            return Checkpointing(self.checkpointed)
        return planned_checkpointing(self.resolved.training.gradient_checkpointing)

    @property
    def resolved(self) -> Settings:
        given = {
            "maxSteps": STEPS, "perDeviceBatchSize": self.rows, "precision": "FP32", "learningRate": "1e-3",
        }  # fmt: skip
        body = {
            "task": self.task.value,
            "model": {"fromConfig": {"model_type": self.family}, "tokenizer": {"trainVocabSize": 256}},
            "dataset": {"builtin": "PythonDocs"},
            "training": given | self.training,
        }
        return resolve(parse_spec(body))


CASES = (
    Case("gpt2", "gpt2", _GPT2),
    Case("gpt2, no dropout", "gpt2", _GPT2 | {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    Case("gpt2, rows of 512", "gpt2", _GPT2, rows=2, length=512),
    Case("gpt2, checkpointing", "gpt2", _GPT2, training={"gradientCheckpointing": True}),
    Case("gpt2, checkpointing 2 of 6", "gpt2", _GPT2, checkpointed=2),
    Case("gpt2, accumulation", "gpt2", _GPT2, rows=2, training={"gradientAccumulationSteps": 4}),
    Case("gpt2, Adafactor", "gpt2", _GPT2, training={"optimizer": "Adafactor"}),
    Case("gpt2, SGD", "gpt2", _GPT2, training={"optimizer": "SGD"}),
    Case("gpt2, BF16", "gpt2", _GPT2, training={"precision": "BF16"}),
    Case("gpt2, 50,257 words", "gpt2", _GPT2 | {"vocab_size": 50257}, rows=4),
    Case("gpt2, one row", "gpt2", _GPT2, rows=1, length=64),
    Case("llama", "llama", _LLAMA),
    Case("llama, 128,256 words", "llama", _LLAMA | {"vocab_size": 128256}, rows=2),
    Case("llama, checkpointing", "llama", _LLAMA, length=256, training={"gradientCheckpointing": True}),
    Case("llama, checkpointing 5 of 8", "llama", _LLAMA, length=256, checkpointed=5),
    Case("llama, BF16", "llama", _LLAMA, training={"precision": "BF16"}),
    Case("llama, wide and flat", "llama", _LLAMA | {"hidden_size": 512, "intermediate_size": 2048}, rows=1, length=64),
    Case("qwen2", "qwen2", _LLAMA | {"tie_word_embeddings": True}, rows=4, length=256),
    Case("qwen3, Adafactor, accumulation", "qwen3", _LLAMA | {"head_dim": 32}, rows=2,
         training={"optimizer": "Adafactor", "gradientAccumulationSteps": 2}),
    Case("gemma 3, windows", "gemma3_text", _LLAMA | {"num_hidden_layers": 12, "head_dim": 32, "sliding_window": 64}),
    Case("bert, masked", "bert", _BERT, task=Task.MASKED_LM),
    Case("bert, labels", "bert", _BERT, rows=16, length=64, task=Task.SEQUENCE_CLASSIFICATION),
    Case("distilbert, labels", "distilbert", {"dim": 128, "hidden_dim": 512, "n_layers": 6, "n_heads": 4},
         rows=4, task=Task.SEQUENCE_CLASSIFICATION),
    Case("roberta, masked, checkpointing", "roberta", _BERT, task=Task.MASKED_LM,
         training={"gradientCheckpointing": True}),
)  # fmt: skip


def predicted(case: Case) -> int:
    """Bytes at the peak, from the configuration alone."""
    plan = replace(plan_of(case.resolved, case.length), checkpointing=case.checkpointing)
    found = Trials(case.config).moments(plan)
    return max(found.forward.total, found.backward.total)


def seconds_of_refusal() -> None:
    """Print the processor's seconds for a run of Llama's 8B shape that 24 GiB do not hold, imports left out."""
    config = transformers.AutoConfig.for_model("llama", **_LLAMA_8B)
    plan = Plan(
        Task.CAUSAL_LM, 2048, Batch(8), on_gpu=True, precision=Precision.BF16, pretrained=True, masked_padding=True
    )
    device = Device(24 * GIB, "--gpu-memory")
    for attempt in ("first", "second"):
        began = time.process_time()
        peak = estimator(Trials(config), device)
        verdict = judge(plan, device.memory, peak, config.num_hidden_layers)
        words = refusal(verdict, device, peak, "spec.dataset.maxLength")
        print(f"{attempt}: {time.process_time() - began:.2f} s")
    print(words)


_HOST = {"n_positions": 128, "n_head": 8}
HOSTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2 of 1M": ({"n_embd": 128, "n_layer": 4}, {}),
    "gpt2 of 50M": ({"n_embd": 768, "n_layer": 7}, {}),
    "gpt2 of 50M, SGD": ({"n_embd": 768, "n_layer": 7}, {"optimizer": "SGD"}),
    "gpt2 of 50M, 32 rows": ({"n_embd": 768, "n_layer": 7}, {"perDeviceBatchSize": 32}),
}
"""Shapes, and what is set in ``spec.training``."""
_PEAK = """
import atexit, sys
from lmft_job.cli.__main__ import main
atexit.register(lambda: print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]))
sys.argv = ["lmft", *sys.argv[1:]]
main()
"""


def hosts() -> None:
    """Print what processes hold, and what ``lmft estimate`` says of it."""
    print(f"{'configuration':<32}{'predicted':>12}{'measured':>12}{'deviation':>11}")
    deviations = []
    for name, (shape, training) in HOSTED.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "host.yaml"
            spec = {
                "model": {
                    "fromConfig": {"model_type": "gpt2", **_HOST, **shape},
                    "tokenizer": {"trainVocabSize": 1000},
                },
                "dataset": {"builtin": "PythonDocs", "blockSize": 128, "split": "train[:40]"},
                "training": {"maxSteps": STEPS, "perDeviceBatchSize": 4, "learningRate": "1e-3", **training},
            }
            kind = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": "host"}}
            manifest.write_text(json.dumps({**kind, "spec": spec}))
            said = _lmft("estimate", str(manifest), "-o", "json")[:-1]
            guess = json.loads("\n".join(said))["hostBytes"]["needed"]
            truth = 1024 * int(_lmft("run", str(manifest), "--output", folder)[-1])
        deviations.append(guess / truth - 1)
        print(f"{name:<32}{guess / MIB:>8,.0f} MiB{truth / MIB:>8,.0f} MiB{deviations[-1]:>+11.1%}", flush=True)
    print(f"{len(deviations)} configurations; the largest deviation is {max(deviations, key=abs):+.1%}")


def _lmft(*arguments: str) -> list[str]:
    """What a fresh process prints, and then its peak in KiB."""
    command = [sys.executable, "-c", _PEAK, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _autocast(precision: str) -> torch.dtype | None:
    return torch.bfloat16 if precision == "BF16" else None


class _Numbers(torch.utils.data.Dataset[int]):
    """As many rows as wanted; the batch is made of them."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        return index


class _NoUploads:
    def submit(self, folder: Path, step: int, into: str = "") -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""

    def wait(self) -> None:
        """Nothing."""


def measured(case: Case) -> int:
    """Bytes of living tensors at the peak of two steps of the run's own Trainer."""
    settings, labels = case.resolved, tasks.of(case.task).has_labels
    factory = getattr(transformers, tasks.of(case.task).auto_class)
    model = factory.from_config(case.config, dtype=torch.float32)
    training = settings.training

    def collate(items: list[int]) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(items[0])
        ids = torch.randint(5, 900, (len(items), case.length), generator=generator)
        if not labels:
            return {"input_ids": ids, "labels": ids.clone()}
        mask = torch.ones_like(ids)
        mask[0, case.length // 2 :] = 0
        return {"input_ids": ids, "labels": ids[:, 0] % 2, "attention_mask": mask}

    tracker = MemTracker()
    with tempfile.TemporaryDirectory() as folder:
        rows: Any = _Numbers(STEPS * case.rows * training.gradient_accumulation_steps)
        job = TrainingInputs(
            settings=settings, model=model, tokenizer=None, train_rows=rows, eval_rows=rows, collate=collate,
            arithmetic=Arithmetic(torch.device("cpu"), _autocast(training.precision)),
            batch=Batch(training.per_device_batch_size, training.gradient_accumulation_steps), folder=Path(folder),
            uploads=_NoUploads(), interrupt=Interrupt(), observer=Observer(), callbacks=[_OnlySteps(tracker)],
            acceleration=Acceleration(checkpointing=case.checkpointing),
        )  # fmt: skip
        trainer = build_trainer(job, TrainingLoop(job, TrainingHistory()))
        tracker.track_external(model)
        with job.acceleration.training(model), tracker:
            trainer.train()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


class _OnlySteps(transformers.TrainerCallback):
    """Neither saves nor evaluates; the tracker keeps figures of a module for one forward pass at a time."""

    def __init__(self, tracker: MemTracker) -> None:
        self.tracker = tracker

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A micro-batch is done."""
        self.tracker.reset_mod_stats()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is done."""
        self.tracker.reset_mod_stats()
        control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All steps are done."""
        control.should_save = control.should_evaluate = False


def main() -> None:
    """Print the table."""
    quiet_transformers()
    if "--seconds" in sys.argv[1:]:
        seconds_of_refusal()
        return
    if "--host" in sys.argv[1:]:
        hosts()
        return
    print(f"{'configuration':<32}{'predicted':>12}{'measured':>12}{'deviation':>11}")
    deviations = []
    for case in CASES:
        if not any(word in case.name for word in sys.argv[1:] or [""]):
            continue
        guess, truth = predicted(case), measured(case)
        deviations.append(guess / truth - 1)
        print(f"{case.name:<32}{guess / MIB:>8,.1f} MiB{truth / MIB:>8,.1f} MiB{deviations[-1]:>+11.1%}", flush=True)
    print(f"{len(deviations)} configurations; the largest deviation is {max(deviations, key=abs):+.1%}")


if __name__ == "__main__":
    main()
