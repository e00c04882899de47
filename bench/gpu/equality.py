"""Whether what makes steps faster leaves the losses alone: every switch, and BF16, beside the plain loop in FP32.

    python bench/gpu/equality.py        # --tiny: the GPU's comparisons too on a CPU, on a tiny shape

On the CPU, in FP32, a small GPT-2 without dropout: each switch by itself and all together, the largest gap of a step's
loss; the aligned head, which is for 16 bits, in BF16. On the GPU 124M, 4 x 512: BF16 plain, and with what a long run
would choose, beside FP32 on the same rows, then the perplexity of other rows.
"""

import argparse
import gc
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import judge, leave_out, say
from loops import SHAPES, Bench, Clock

from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockRows, BlockWriter
from lmft_job.training.acceleration.selection import PLAIN, Acceleration, compile_layers
from lmft_job.training.batch import ALL_LAYERS, Checkpointing

OTHERS = ("padded", "varlen", "of_targets")
"""Each row is one text and full here; what is for padded ones is in the comparison with TRL (lora.py), what is for rows
that texts share in varlen.py. Logits of trained tokens alone are a CPU's."""
SWITCHES = [field.name for field in fields(Acceleration) if field.type is bool and field.name not in OTHERS]
SMALL = replace(SHAPES["gpt2-124m"].smaller(), learning_rate=1e-3, steps=5)


def switched(*names: str) -> Callable[[Any], Acceleration]:
    """Those switches on, for a model."""

    def choose(model: Any) -> Acceleration:
        if "compiled" in names and not compile_layers(model):
            raise ValueError("the model names no layers to compile")
        on = {name: True for name in names if name in SWITCHES}
        return Acceleration(**on, checkpointing=Checkpointing(ALL_LAYERS if "checkpointed" in names else 0))

    return choose


def on_cpu(folder: Path, *, tiny: bool) -> None:
    """Each switch beside the plain loop."""
    bench = Bench(SMALL, folder, torch.device("cpu"))
    plain = {kind: bench.trained(Clock(SMALL.steps), kind, lambda model: PLAIN)[1] for kind in ("FP32", "BF16")}
    # With the loss without logits there is no head to align.
    together = [name for name in SWITCHES if name != "aligned"]
    cases = {**{name: (name,) for name in (*SWITCHES, "checkpointed")}, "all": (*together, "checkpointed")}
    for case, names in cases.items():
        if "compiled" in names and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
            leave_out("equality/switches", "no C++ compiler for the compiled layers", case=case)
            continue
        torch._dynamo.reset()
        # The aligned head is for 16 bits, and does nothing in FP32.
        precision = "BF16" if case == "aligned" else "FP32"
        _, losses = bench.trained(Clock(SMALL.steps), precision, switched(*names))
        gap = max(abs(mine - theirs) for mine, theirs in zip(losses, plain[precision], strict=True))
        figures = {"steps": len(losses), "precision": precision, "loss": [losses[0], losses[-1]]}
        judge("equality/switches", gap, tiny=tiny, case=case, **figures)


def on_device(folder: Path, *, tiny: bool) -> None:
    """BF16, plain and with what a long run chooses, beside FP32."""
    shape = SMALL if tiny else replace(SHAPES["gpt2-124m"], rows=4, block=512)
    bench = Bench(shape, folder)
    held = folder / "held.arrow"
    with BlockWriter(held, shape.block, shape.vocabulary) as writer:
        steps = np.random.default_rng(7).integers(0, 7, 32 * shape.rows * shape.block)
        writer.add((np.cumsum(steps) % shape.vocabulary).astype(np.int64))
    kinds: dict[str, tuple[str, Any]] = {
        "FP32": ("FP32", lambda model: PLAIN), "BF16": ("BF16", lambda model: PLAIN), "BF16, all": ("BF16", None),
    }  # fmt: skip
    losses: dict[str, list[float]] = {}
    perplexity: dict[str, float] = {}
    for kind, (precision, choose) in kinds.items():
        torch._dynamo.reset()
        job, losses[kind] = bench.trained(Clock(shape.steps), precision, choose)
        found = replace(job, eval_rows=BlockRows(held)).evaluate(lambda: None).figures.perplexity
        assert found is not None
        perplexity[kind] = found
        used = job.acceleration.described(job.model, job.arithmetic)
        say(run=kind, used=used, loss=[losses[kind][0], losses[kind][-1]], perplexity=found)
        del job
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def gap(one: str, other: str) -> dict[str, float]:
        gaps = [abs(mine - theirs) for mine, theirs in zip(losses[one], losses[other], strict=True)]
        return {"value": statistics.fmean(gaps), "largest": max(gaps)}

    tiny = tiny or not torch.cuda.is_available()
    judge("equality/gpu", tiny=tiny, **gap("BF16, all", "BF16"))
    for kind in ("BF16, all", "BF16"):
        judge("equality/bf16", tiny=tiny, case=kind, **gap(kind, "FP32"))
        apart = abs(perplexity[kind] / perplexity["FP32"] - 1)
        judge("equality/perplexity", apart, tiny=tiny, case=kind, ours=perplexity[kind], peer=perplexity["FP32"])


def main() -> None:
    """Both; the GPU's first, which takes what is scarce."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    quiet_transformers()
    for measured in (on_device, on_cpu):
        with tempfile.TemporaryDirectory() as folder:
            measured(Path(folder), tiny=tiny)


if __name__ == "__main__":
    main()
