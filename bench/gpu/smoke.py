"""The quickstart end to end on a GPU, as people run it; and whether the peaks table knows the card.

    python bench/gpu/smoke.py        # --tiny: a few steps on a CPU

What BF16 and the switches do to the figures is another part's (equality.py), without the quickstart's dropout, which
need not draw the same numbers in another precision.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from commands import judge, leave_out, manifest, report, run, say
from machine import name_by_driver

from lmft_job.memory.duration import peak_tflops


def quickstart(*, tiny: bool) -> None:
    """Run it and print what it used."""
    changes: dict[str, dict[str, Any]] = {}
    if tiny:
        changes = {
            "resources": {"gpusPerNode": 0}, "training": {"epochs": None, "maxSteps": 10},
            "dataset": {"testPercent": 2}, "sample": {"maxNewTokens": 4},
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        code, text = run(folder, manifest(folder, "smoke", **changes))
        seconds = round(time.perf_counter() - began, 1)
        if code:
            say(run="quickstart", exit=code, seconds=seconds, said=text[-600:])
            judge("smoke/quickstart", False, tiny=tiny)
            return
        figures = report(folder, "smoke")
    results = figures["results"]
    say(
        run="quickstart", device=figures["device"], precision=figures["precision"], used=figures.get("acceleration"),
        baseline=results["baselinePerplexity"], perplexity=results["perplexity"],
        tokens_per_s=figures["training"].get("tokensPerSecond"), seconds=seconds, timings=figures["timings"],
        sample=results["samples"][0]["after"][:80],
    )  # fmt: skip
    better = results["perplexity"] < results["baselinePerplexity"]
    judge("smoke/quickstart", tiny or (better and figures["precision"] == "BF16"), tiny=tiny, better=better)


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    name = name_by_driver()
    if name is None:
        leave_out("smoke/peak", "there is no nvidia-smi here, or it names no GPU")
    else:
        peak = peak_tflops(name)
        same = peak is not None and torch.cuda.is_available() and peak == peak_tflops(torch.cuda.get_device_name())
        judge("smoke/peak", same, tiny=tiny, nvidia_smi=name, peak_tflops=peak)
    quickstart(tiny=tiny)


if __name__ == "__main__":
    main()
