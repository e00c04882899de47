"""Training throughput on one GPU: ours, a bare loop, and the tutorial's Trainer call with and without its fast flags.

    python bench/gpu/loops.py gpt2-124m          # or another of PARTS; --tiny for a CPU

Weights are fresh, rows are drawn from a generator, the same for every loop. A loop warms up, then three windows of
steps are timed, the device's queue included; the rate is the median window's. Every finished loop prints a JSON line:
tokens/s, milliseconds a step, MFU (6 x parameters that multiply x tokens, plus attention's 12 x layers x width x
length, after PaLM's appendix B, of the card's peak in 16 bits), peak memory, first and last loss.
Loops of ours are compared step by step: ``loss_gap`` is the mean and the largest difference. Once the rates of two
loops are known, those of an earlier part of the same measurement included, the goal of their ratio follows.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from bare import train_bare
from commands import earlier_lines, say
from goals import ratios
from transformers.trainer_callback import PrinterCallback

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec import Compile
from lmft_api.spec.resolved import resolve
from lmft_api.tasks import Task
from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockRows, BlockWriter, stack_blocks
from lmft_job.memory.duration import peak_tflops
from lmft_job.models.device import arithmetic_for
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.training.acceleration.selection import PLAIN, Acceleration, choose_acceleration
from lmft_job.training.batch import Batch
from lmft_job.training.history import TrainingHistory
from lmft_job.training.loop import TrainingInputs, TrainingLoop
from lmft_job.training.trainer import build_trainer

WARM, WINDOWS = 15, 3


@dataclass(frozen=True)
class Shape:
    """A model and its batches."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    block: int
    rows: int
    dropout: float
    steps: int
    learning_rate: float = 5e-5

    def config(self) -> Any:
        """Of transformers."""
        if self.family == "gpt2":
            return transformers.GPT2Config(
                n_layer=self.layers, n_embd=self.width, n_head=self.heads, n_inner=self.inner,
                vocab_size=self.vocabulary, n_positions=self.block, resid_pdrop=self.dropout, embd_pdrop=self.dropout,
                attn_pdrop=self.dropout, bos_token_id=0, eos_token_id=0,
            )  # fmt: skip
        return transformers.LlamaConfig(
            num_hidden_layers=self.layers, hidden_size=self.width, intermediate_size=self.inner,
            num_attention_heads=self.heads, num_key_value_heads=self.kv_heads, vocab_size=self.vocabulary,
            max_position_embeddings=self.block, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip

    def model(self, device: torch.device | str = "cpu") -> Any:
        """The same fresh weights every time, on a device of the same kind."""
        transformers.set_seed(1)
        with torch.device(device):
            return transformers.AutoModelForCausalLM.from_config(self.config())

    def smaller(self) -> "Shape":
        """So small that a CPU shows that it runs."""
        return replace(
            self, layers=2, width=64, heads=2, kv_heads=1 if self.family == "llama" else 2, inner=128, vocabulary=500,
            block=32, rows=2, steps=4,
        )  # fmt: skip


SHAPES = {
    "tutorial": Shape("gpt2", 12, 768, 12, 12, 3072, 50257, 128, 8, 0.1, 60),
    "gpt2-124m": Shape("gpt2", 12, 768, 12, 12, 3072, 50257, 1024, 16, 0.0, 20),
    "llama-1.1b": Shape("llama", 22, 2048, 32, 4, 5632, 32000, 2048, 4, 0.0, 8),
}
PARTS = {
    "tutorial": ("tutorial", ("ours", "run_clm", "ours-plain")),
    # What compiles as a whole takes half a minute to compile: parts of their own, so that each stays short.
    **{f"{shape}{end}": (shape, loops) for shape in ("gpt2-124m", "llama-1.1b") for end, loops in
       (("", ("ours", "run_clm", "ours-plain")), ("-fast", ("run_clm-fast",)), ("-bare", ("bare",)))},
}  # fmt: skip
"""Shape and loops, the most telling first."""
SHORT = {("llama-1.1b", "run_clm"): 2}
"""Steps of a window where a loop is so slow (FP32) that those of the others would not fit."""


class Clock(transformers.TrainerCallback):
    """Seconds at the edges of the windows; only there it waits for the device."""

    def __init__(self, steps: int) -> None:
        self.edges = {WARM + number * steps for number in range(WINDOWS + 1)}
        self.times: list[float] = []
        self.step = 0

    def tick(self) -> None:
        """A step was asked for."""
        self.step += 1
        if self.step in self.edges:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer."""
        control.should_save = control.should_evaluate = False
        self.tick()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer."""
        control.should_save = control.should_evaluate = False


class Bench:
    """One shape on a device; None takes the GPU, if there is one."""

    def __init__(self, shape: Shape, folder: Path, device: torch.device | None = None) -> None:
        self.shape, self.folder = shape, folder
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.steps = WARM + WINDOWS * shape.steps
        walk = np.cumsum(np.random.default_rng(0).integers(0, 7, shape.rows * shape.block * 40)) % shape.vocabulary
        self.blocks = np.resize(walk, (self.steps * shape.rows, shape.block)).astype(np.int64)
        with BlockWriter(folder / "rows.arrow", shape.block, shape.vocabulary) as writer:
            writer.add(self.blocks.reshape(-1))

    def bare(self, clock: Clock) -> list[float]:
        """By hand."""
        host = torch.from_numpy(self.blocks)
        host = host.pin_memory() if self.device.type == "cuda" else host
        rows = self.shape.rows
        losses = train_bare(
            self.shape, lambda step: host[step * rows : (step + 1) * rows], self.steps, clock.tick, self.device
        )
        return torch.stack(losses).tolist()

    def tutorial(self, clock: Clock, **flags: Any) -> list[float]:
        """The tutorial's call."""
        shape = self.shape
        arguments = transformers.TrainingArguments(
            output_dir=str(self.folder / "tutorial"), max_steps=self.steps, learning_rate=shape.learning_rate,
            per_device_train_batch_size=shape.rows, weight_decay=0.01, save_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=self.device.type == "cpu", **flags,
        )  # fmt: skip
        lists = [list(map(int, row)) for row in self.blocks[:400]]
        ones = [1] * shape.block

        class Rows(torch.utils.data.Dataset[Any]):
            def __len__(inner) -> int:
                return len(self.blocks)

            def __getitem__(inner, index: int) -> Any:
                row = lists[index % len(lists)]
                return {"input_ids": row, "labels": row, "attention_mask": ones}

        trainer = transformers.Trainer(
            model=shape.model(self.device), args=arguments, train_dataset=Rows(), callbacks=[clock],
            data_collator=transformers.default_data_collator,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return []

    def ours(self, clock: Clock, precision: str = "Auto", plain: bool = False) -> tuple[list[float], Acceleration]:
        """Our loop, without evaluations and checkpoints."""
        job, losses = self.trained(clock, precision, (lambda model: PLAIN) if plain else None)
        return losses, job.acceleration

    def trained(
        self,
        clock: Clock,
        precision: str,
        choose: Callable[[Any], Acceleration] | None = None,
        after: Callable[[TrainingInputs], None] = lambda job: None,
    ) -> tuple[TrainingInputs, list[float]]:
        """Our loop; its inputs, and the losses of its steps.

        Args:
            clock: of the steps.
            precision: as the manifest has it.
            choose: says what is used with the model; None chooses as a long run does.
            after: called at the end, while there is the optimiser's state.
        """
        shape, model = self.shape, self.shape.model(self.device)
        training = {
            "maxSteps": self.steps, "perDeviceBatchSize": shape.rows, "precision": precision,
            "learningRate": str(shape.learning_rate),
        }  # fmt: skip
        settings = resolve(
            parse_spec(
                {
                    "model": {"fromConfig": {"model_type": shape.family}, "tokenizer": {"trainVocabSize": 256}},
                    "dataset": {"builtin": "PythonDocs", "blockSize": shape.block},
                    "training": training,
                }
            )
        )
        arithmetic = arithmetic_for(settings, self.device)
        if choose is None:
            chosen = choose_acceleration(
                model, Task.CAUSAL_LM, arithmetic, block_size=shape.block,
                tokens=shape.rows * shape.block, steps=10_000, wanted=Compile.AUTO, own_loss=False,
            )  # fmt: skip
        else:
            chosen = choose(model)
        rows, state = BlockRows(self.folder / "rows.arrow"), TrainingHistory()
        job = TrainingInputs(
            settings=settings, model=model, tokenizer=None, train_rows=rows, eval_rows=rows,
            collate=chosen.collate(stack_blocks, shape.rows), arithmetic=arithmetic, batch=Batch(shape.rows),
            folder=self.folder,
            uploads=NoUploads(), interrupt=Interrupt(), observer=Observer(), callbacks=[clock], acceleration=chosen,
        )  # fmt: skip
        run = TrainingLoop(job, state)
        trainer = build_trainer(job, run)
        with chosen.training(model):
            trainer.train()
        run.flush()
        after(job)
        return job, state.losses


class NoUploads:
    """Checkpoints are another benchmark's."""

    def submit(self, folder: Path, step: int, into: str = "") -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""

    def wait(self) -> None:
        """Nothing."""


def loops(bench: Bench, found: dict[str, Any]) -> dict[str, Callable[[Clock], list[float]]]:
    """The loops by name; ``found`` gets what ours used."""
    cuda = bench.device.type == "cuda"
    fast: dict[str, Any] = {"bf16": True, "torch_compile": True} if cuda else {}

    def ours(clock: Clock, **options: Any) -> list[float]:
        losses, chosen = bench.ours(clock, **options)
        found["used"] = [name for name, on in vars(chosen).items() if on is True]
        return losses

    return {
        "ours-plain": lambda clock: ours(clock, plain=True),
        "ours": ours,
        "ours-fp32": lambda clock: ours(clock, precision="FP32", plain=True),
        "bare": bench.bare,
        "run_clm-fast": lambda clock: bench.tutorial(clock, **fast),
        "run_clm": bench.tutorial,
    }


def flops_of(shape: Shape) -> int:
    """Floating-point operations for a token, forward and backward."""
    multiplying = sum(weight.numel() for weight in shape.model("meta").parameters())
    multiplying -= shape.width * (shape.block if shape.family == "gpt2" else shape.vocabulary)
    return 6 * multiplying + 12 * shape.layers * shape.width * shape.block


def measure(name: str, shape: Shape, wanted: tuple[str, ...], *, tiny: bool) -> None:
    """Time each loop and print its line, and the goals that it decides."""
    flops, cuda = flops_of(shape), torch.cuda.is_available()
    of_ours: dict[str, list[float]] = {}
    lines = earlier_lines()
    for loop in wanted:
        timed = replace(shape, steps=SHORT.get((name, loop), shape.steps))
        gc.collect()
        torch._dynamo.reset()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began, clock, found = time.perf_counter(), Clock(timed.steps), {}  # type: ignore[var-annotated]
        with tempfile.TemporaryDirectory() as folder:
            try:
                losses = loops(Bench(timed, Path(folder)), found)[loop](clock)
            except Exception as error:  # a peer that fails must not cost the others
                if loop.startswith("ours"):
                    raise
                say(shape=name, loop=loop, not_measured=f"{type(error).__name__}: {error}"[:400])
                continue
        windows = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
        rate = shape.rows * shape.block * timed.steps / statistics.median(windows)
        line = {"shape": name, "loop": loop, "tokens_per_s": round(rate), **found,
                "ms_per_step": round(1e3 * shape.rows * shape.block / rate, 2),
                "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
        if cuda:
            peak = peak_tflops(torch.cuda.get_device_name())
            line["mfu"] = round(rate * flops / peak / 1e12, 4) if peak else None
            line["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if losses:
            line["loss"] = [round(losses[0], 5), round(losses[-1], 5)]
        if loop.startswith("ours"):
            for other, theirs in of_ours.items():
                if not shape.dropout:
                    gaps = [abs(mine - its) for mine, its in zip(losses, theirs, strict=True)]
                    line["loss_gap"] = {"to": other, "mean": statistics.fmean(gaps), "largest": max(gaps)}
            of_ours[loop] = losses
        say(**line)
        lines.append(line)
        for row in ratios(lines, name, tiny=tiny or not cuda):
            if loop == "ours" or row["row"] == f"{name}/{loop}":
                say(**row)


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--loops", help="others than the part's, by commas; ours-fp32 is one more")
    parser.add_argument("--tiny", action="store_true", help="so small that a CPU shows that it runs")
    options = parser.parse_args()
    quiet_transformers()
    name, wanted = PARTS[options.part]
    shape = SHAPES[name].smaller() if options.tiny else SHAPES[name]
    measure(name, shape, tuple(options.loops.split(",")) if options.loops else wanted, tiny=options.tiny)


if __name__ == "__main__":
    main()
