"""Faults on a GPU: memory that runs out for real, SIGTERM in the middle with a resumed run after it, and no GPU at all.

python bench/gpu/faults.py       # one JSON line a fault; --tiny for a CPU, which has no memory to run out of
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from commands import manifest, report, run, say, start

LEFT_GIB = 4.0
BIG = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 512}


def shortage(folder: Path) -> None:
    """Another process holds all but a few GiB of the device; the run must find a batch that fits."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, int(free - LEFT_GIB * 2**30)), dtype=torch.uint8, device="cuda")
    path = manifest(
        folder, "shortage",
        model={"fromConfig": {"model_type": "gpt2", **BIG}},
        dataset={"blockSize": 512},
        training={"perDeviceBatchSize": 128, "epochs": 1, "learningRate": "1e-4"},
        sample={"prompts": ["The import statement"], "maxNewTokens": 8},
    )  # fmt: skip
    began = time.perf_counter()
    code, text = run(folder, path)
    line: dict[str, Any] = {"fault": "memory", "exit": code, "seconds": round(time.perf_counter() - began, 1)}
    if code == 0:
        line["adjusted"] = report(folder, "shortage")["training"]["adjustments"]
    else:
        line["said"] = text[-600:]
    say(**line, left_gib=LEFT_GIB, held_gib=round(held.numel() / 2**30, 1))


def interruption(folder: Path, steps: int, gpus: int) -> None:
    """SIGTERM once a checkpoint is there; the same command resumes, and the figures are those of an undisturbed run."""
    shape: dict[str, dict[str, Any]] = {
        "training": {"epochs": None, "maxSteps": steps}, "checkpoint": {"everySteps": 50},
        "resources": {"gpusPerNode": gpus},
    }  # fmt: skip
    paths = {}
    for name in ("undisturbed", "disturbed"):
        paths[name] = manifest(folder, name, **shape)
    code, text = run(folder, paths["undisturbed"])
    if code:
        say(fault="SIGTERM", exit=code, said=text[-600:])
        return
    process = start(folder, paths["disturbed"])
    checkpoints = folder / "runs" / "default" / "runs" / "disturbed" / "checkpoints"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not any(checkpoints.rglob("MANIFEST.json")):
        time.sleep(0.05)
    asked = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    seconds = round(time.perf_counter() - asked, 2)
    resumed, text = run(folder, paths["disturbed"])
    line: dict[str, Any] = {"fault": "SIGTERM", "exit": process.returncode, "seconds": seconds, "resumed_exit": resumed}
    if resumed == 0:
        both = {name: report(folder, name) for name in paths}
        line["resumed_from_step"] = both["disturbed"]["training"].get("resumedFromStep")
        line["perplexity"] = {name: found["results"]["perplexity"] for name, found in both.items()}
    else:
        line["said"] = (said + text)[-600:]
    say(**line)


_ASKED = "from lmft_job.models.device import choose_device; choose_device(1, required=True, say=print)"


def missing() -> None:
    """A pod that has a GPU by its manifest, of which torch sees none, must end with AcceleratorMissing."""
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([sys.executable, "-c", _ASKED], env=variables, capture_output=True, text=True, check=False)
    say(fault="no GPU", refused=ended.returncode != 0 and "RefusedError" in ended.stderr, said=ended.stderr[-300:])


def main() -> None:
    """Provoke each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tiny", action="store_true", help="few steps, on a CPU")
    options = parser.parse_args()
    steps = 100 if options.tiny else options.steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        missing()
        interruption(folder, steps, gpus=0 if options.tiny else 1)
        if torch.cuda.is_available():
            shortage(folder)


if __name__ == "__main__":
    main()
