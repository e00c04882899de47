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
    for rows in (1, 8):
        shape = replace(SHAPE.smaller() if tiny else SHAPE, rows=rows, steps=1)
        case, cuda = f"{rows} x {SHAPE.block:,}", torch.cuda.is_available()
        with tempfile.TemporaryDirectory() as name:
            bench, held = Bench(shape, Path(name)), Path(name) / "held.arrow"
            with BlockWriter(held, shape.block, shape.vocabulary) as writer:
                writer.add(bench.blocks[:rows].reshape(-1))
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            job, _ = bench.trained(Clock(shape.steps), "Auto")
            training = torch.cuda.max_memory_allocated() if cuda else None
            if cuda:
                gc.collect()
                torch.cuda.reset_peak_memory_stats()
            replace(job, eval_rows=BlockRows(held)).evaluate(lambda: None)
            used = job.acceleration.described(job.model, job.arithmetic)
            if training is None:
                say(part="evaluation", case=case, used=used)
                leave_out("evaluation/peak", "a CPU does not count what is allocated", case=case)
            else:
                evaluating = torch.cuda.max_memory_allocated()
                figures = {"ours": round(evaluating / 2**30, 2), "peer": round(training / 2**30, 2), "unit": "GiB"}
                judge("evaluation/peak", round(evaluating / training, 3), tiny=tiny, case=case, used=used, **figures)
            del job
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
