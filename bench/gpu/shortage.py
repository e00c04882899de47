"""Memory of a GPU that runs out for real: another process holds all but a few GiB, and the run must find what fits.

python bench/gpu/shortage.py       # --tiny: a CPU has no memory of its own to run out of, and says so
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from commands import judge, leave_out, manifest, report, run, say

LEFT_GIB = 4.0
BIG = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 512}


def main() -> None:
    """Hold memory, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    if not torch.cuda.is_available():
        leave_out("shortage/batch", "a CPU has no memory of its own to run out of")
        return
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, int(free - LEFT_GIB * 2**30)), dtype=torch.uint8, device="cuda")
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        path = manifest(
            folder, "shortage",
            model={"fromConfig": {"model_type": "gpt2", **BIG}},
            dataset={"blockSize": 512},
            training={"perDeviceBatchSize": 128, "epochs": 1, "learningRate": "1e-4"},
            sample={"prompts": ["The import statement"], "maxNewTokens": 8},
        )  # fmt: skip
        code, text = run(folder, path)
        seconds = round(time.perf_counter() - began, 1)
        adjusted = report(folder, "shortage")["training"]["adjustments"] if code == 0 else None
    if code:
        say(fault="memory", exit=code, said=text[-900:])
    figures = {"left_gib": LEFT_GIB, "held_gib": round(held.numel() / 2**30, 1)}
    judge("shortage/batch", bool(adjusted), tiny=tiny, exit=code, adjusted=adjusted, seconds=seconds, **figures)


if __name__ == "__main__":
    main()
