"""Documents that do not see each other, by masks and by attention within each: 8 rows of 2,048 tokens, 200 a document.

    python bench/gpu/varlen.py          # --tiny for a CPU, with a stand-in for the kernel: it shows only that it runs

The same fresh weights and rows for each loop, the GPU's own precision, our Trainer. Each finished loop prints a JSON
line: tokens/s, milliseconds a step, peak memory, first and last loss, and ``loss_gap``, the mean and the largest
difference of its steps to the loop with masks. On a GPU the last line says whether the model may use the attention, and
if not, why.
"""

import argparse
import gc
import logging
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import judge, leave_out, say
from loops import WARM, WINDOWS, Clock, NoUploads, Shape

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec import Compile
from lmft_api.spec.resolved import resolve
from lmft_api.tasks import Task
from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.isolated.blocks import DocumentBlocks, DocumentBlockWriter
from lmft_job.data.isolated.collate import PadShared
from lmft_job.models.device import arithmetic_for
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.training.acceleration import varlen_attention
from lmft_job.training.acceleration.selection import Acceleration, choose_acceleration
from lmft_job.training.batch import Batch
from lmft_job.training.history import TrainingHistory
from lmft_job.training.loop import TrainingInputs, TrainingLoop
from lmft_job.training.trainer import build_trainer

SHAPE = Shape("gpt2", 12, 768, 12, 12, 3072, 50257, 2048, 8, 0.0, 20)
DOCUMENT_TOKENS = 200
LOOPS = ("masks", "varlen", "varlen-compiled")


def write_rows(shape: Shape, path: Path) -> float:
    """As many blocks as all loops read, of documents with lengths drawn geometrically; tokens of a mean document."""
    draw, blocks = np.random.default_rng(0), (WARM + WINDOWS * shape.steps) * shape.rows
    lengths = draw.geometric(1 / min(DOCUMENT_TOKENS, shape.block // 4), blocks * shape.block // 4)
    ends = np.cumsum(lengths)
    lengths = lengths[: int(np.searchsorted(ends, blocks * shape.block)) + 1]
    walk = np.cumsum(draw.integers(0, 7, int(lengths.sum()))) % shape.vocabulary
    with DocumentBlockWriter(path, shape.block, shape.vocabulary) as writer:
        writer.add(walk.astype(np.int64), lengths)
    return float(lengths.mean())


def chosen(loop: str, shape: Shape, model: Any, arithmetic: Any) -> Acceleration:
    """What a loop uses; on a CPU what it would use, as far as it runs there."""
    if arithmetic.device.type != "cuda":
        return Acceleration(varlen=loop != "masks")
    found = choose_acceleration(
        model, Task.CAUSAL_LM, arithmetic, block_size=shape.block, shared=shape.block,
        tokens=shape.rows * shape.block, steps=10_000, own_loss=False,
        wanted=Compile.AUTO if loop.endswith("compiled") else Compile.OFF,
    )  # fmt: skip
    return replace(found, varlen=False) if loop == "masks" else found


def losses_of(loop: str, shape: Shape, folder: Path, device: torch.device, clock: Clock) -> tuple[list[float], Any]:
    """Train; the losses of all steps, and what was used."""
    spec = {
        "model": {"fromConfig": {"model_type": shape.family}, "tokenizer": {"trainVocabSize": 256}},
        "dataset": {"builtin": "PythonDocs", "blockSize": shape.block, "isolateDocuments": True},
        "training": {"maxSteps": WARM + WINDOWS * shape.steps, "perDeviceBatchSize": shape.rows},
    }
    settings, model = resolve(parse_spec(spec)), shape.model().to(device)
    arithmetic = arithmetic_for(settings, device)
    used = chosen(loop, shape, model, arithmetic)
    rows, state = DocumentBlocks(folder / "rows.arrow"), TrainingHistory()
    job = TrainingInputs(
        settings=settings, model=model, tokenizer=None, train_rows=rows, eval_rows=rows,
        collate=used.collate(PadShared(0), shape.rows), arithmetic=arithmetic, batch=Batch(shape.rows), folder=folder,
        uploads=NoUploads(), interrupt=Interrupt(), observer=Observer(), callbacks=[clock], acceleration=used,
    )  # fmt: skip
    run = TrainingLoop(job, state)
    trainer = build_trainer(job, run)
    with used.training(model):
        trainer.train()
    run.flush()
    return list(state.losses), used


def main() -> None:
    """Measure all loops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    quiet_transformers()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu, shape = device.type == "cuda", SHAPE.smaller() if tiny else SHAPE
    reasons: list[str] = []
    log = logging.getLogger(varlen_attention.__name__)
    log.addFilter(lambda line: reasons.append(line.getMessage()) or True)
    log.setLevel(logging.INFO)
    if not on_gpu:
        varlen_attention.varlen_kernel = lambda: varlen_attention.attend_by_text
    losses: dict[str, list[float]] = {}
    gaps: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        mean = write_rows(shape, Path(name) / "rows.arrow")
        for loop in LOOPS if on_gpu else LOOPS[:2]:  # a compiled loop would be the same on a CPU
            gc.collect()
            torch._dynamo.reset()
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            clock = Clock(shape.steps)
            losses[loop], used = losses_of(loop, shape, Path(name), device, clock)
            apart = [abs(mine - theirs) for mine, theirs in zip(losses[loop], losses["masks"], strict=True)]
            gaps += [statistics.fmean(apart)] if used.varlen else []
            windows = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
            seconds = statistics.median(windows) / shape.steps
            line: dict[str, Any] = {
                "part": "varlen", "loop": loop, "device": device.type, "document_tokens": round(mean, 1),
                "used": [part for part, on in vars(used).items() if on is True],
                "loss": [round(losses[loop][0], 5), round(losses[loop][-1], 5)],
                "loss_gap": {"mean": statistics.fmean(apart), "largest": max(apart)},
            }  # fmt: skip
            if on_gpu:
                line |= {"tokens_per_s": round(shape.rows * shape.block / seconds),
                         "ms_per_step": round(1e3 * seconds, 2),
                         "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}  # fmt: skip
            say(**line)
    if gaps:
        judge("varlen/loss", max(gaps), tiny=tiny or not on_gpu)
    else:
        leave_out("varlen/loss", "; ".join(sorted(set(reasons))))


if __name__ == "__main__":
    main()
