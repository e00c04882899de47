"""What evaluating takes against training, where the vocabulary is large: 131,072 entries, rows of 8,192 tokens.

    python bench/gpu/evaluation.py      # --tiny for a CPU, which has no figure to compare: it shows that it runs

A Llama of 4 layers of 1,024; steps and evaluation as a run has them, at one row, and at eight, whose logits a device of
80 GB does not hold. Each figure is ``max_memory_allocated``, weights and optimiser included.
"""

import argparse
import gc
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from commands import judge, leave_out, say
from loops import SHAPES, Bench, Clock

from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockRows, BlockWriter
from lmft_job.training.loop import TrainingInputs

SHAPE = replace(
    SHAPES["llama-1.1b"],
    layers=4,
    width=1024,
    heads=16,
    kv_heads=4,
    inner=2816,
    vocabulary=131_072,
    block=8192,
    steps=1,
)


def main() -> None:
    """A line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    quiet_transformers()
    cuda = torch.cuda.is_available()
    for rows in (1, 8):
        shape = replace(SHAPE.smaller() if tiny else SHAPE, rows=rows, steps=1)
        case, peaks = f"{rows} x {SHAPE.block:,}", []
        with tempfile.TemporaryDirectory() as name:
            bench, held = Bench(shape, Path(name)), Path(name) / "held.arrow"
            with BlockWriter(held, shape.block, shape.vocabulary) as writer:
                writer.add(bench.blocks[:rows].reshape(-1))

            def evaluated(job: TrainingInputs, held: Path = held, peaks: list[int] = peaks) -> None:
                peaks.append(peak_since_before() if cuda else 0)
                replace(job, eval_rows=BlockRows(held)).evaluate(lambda: None)
                peaks.append(peak_since_before() if cuda else 0)

            if cuda:
                peak_since_before()
            job, _ = bench.trained(Clock(shape.steps), "Auto", after=evaluated)
        used = job.acceleration.described(job.model, job.arithmetic)
        if cuda:
            figures = {"ours": round(peaks[1] / 2**30, 2), "peer": round(peaks[0] / 2**30, 2), "unit": "GiB"}
            judge("evaluation/peak", round(peaks[1] / peaks[0], 3), tiny=tiny, case=case, used=used, **figures)
        else:
            say(part="evaluation", case=case, used=used)
            leave_out("evaluation/peak", "a CPU does not count what is allocated", case=case)
        del job
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()


def peak_since_before() -> int:
    """Bytes allocated at most since the last call."""
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


if __name__ == "__main__":
    main()
