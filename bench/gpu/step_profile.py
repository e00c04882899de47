"""Where a step of ours spends its time on a GPU: the kernels that take longest, and the time in which none runs.

python bench/gpu/step_profile.py gpt2-124m
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from loops import SHAPES, WARM, Bench, Clock
from torch.profiler import ProfilerActivity, profile

from lmft_job.attempt.context import quiet_transformers

STEPS = 5


class Profiled(Clock):
    """A clock that profiles a few steps after the warm-up."""

    def __init__(self, plain: bool) -> None:
        super().__init__(STEPS)
        activities = [ProfilerActivity.CPU] if plain else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self.profiler = profile(activities=activities)
        self.seconds = 0.0

    def tick(self) -> None:
        """A step was asked for."""
        self.step += 1
        if self.step == WARM:
            torch.cuda.synchronize()
            self.profiler.__enter__()
            self.began = time.perf_counter()
        if self.step == WARM + STEPS:
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.began
            self.profiler.__exit__(None, None, None)


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    quiet_transformers()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(replace(SHAPES[options.shape], steps=3), Path(folder))
        clock: Any = Profiled(plain=False)
        bench.ours(clock, plain=options.plain)
    averages = clock.profiler.key_averages()
    busy = sum(event.self_device_time_total for event in averages if event.device_type.name == "CUDA") / 1e6
    print(f"{1e3 * clock.seconds / STEPS:.1f} ms a step while profiled, kernels {1e3 * busy / STEPS:.1f} ms")
    for key in ("self_cuda_time_total", "self_cpu_time_total"):
        print(averages.table(sort_by=key, row_limit=22, max_name_column_width=60))


if __name__ == "__main__":
    main()
