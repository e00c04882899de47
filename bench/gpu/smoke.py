"""The quickstart end to end on a GPU: in BF16, in FP32, compiled, and on the CPU beside it; the figures must agree.

python bench/gpu/smoke.py        # one JSON line a run, and one for each comparison
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import manifest, report, run, say

RUNS: dict[str, dict[str, Any]] = {
    "gpu-auto": {},
    "gpu-fp32": {"training": {"precision": "FP32"}},
    "cpu": {"resources": {"gpusPerNode": 0}},
}


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--tiny", action="store_true", help="a few steps on the CPU alone")
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.runs = 10, "cpu"
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.runs.split(","):
            changes = {section: dict(values) for section, values in RUNS[kind].items()}
            changes["training"] = {"epochs": None, "maxSteps": options.steps, **changes.get("training", {})}
            path = manifest(folder, kind, **changes)
            began = time.perf_counter()
            code, text = run(folder, path)
            seconds = round(time.perf_counter() - began, 1)
            if code != 0:
                say(run=kind, exit=code, seconds=seconds, said=text[-600:])
                continue
            figures = found[kind] = report(folder, kind)
            say(
                run=kind, device=figures["device"], precision=figures["precision"],
                used=figures.get("acceleration"), baseline=figures["results"]["baselinePerplexity"],
                perplexity=figures["results"]["perplexity"], tokens_per_s=figures["training"].get("tokensPerSecond"),
                seconds=seconds, timings=figures["timings"], sample=figures["results"]["samples"][0]["after"][:80],
            )  # fmt: skip
    for one, other in (("gpu-auto", "gpu-fp32"), ("gpu-fp32", "cpu")):
        if one in found and other in found:
            first, second = (found[kind]["results"]["perplexity"] for kind in (one, other))
            say(compare=[one, other], perplexity_difference_percent=round(100 * abs(first / second - 1), 3))


if __name__ == "__main__":
    main()
