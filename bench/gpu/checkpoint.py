"""What a checkpoint every 100 steps costs: the steps 100 to 300 of two runs, one with checkpoints to S3, one without.

    python bench/gpu/checkpoint.py      # --tiny for a CPU: every 10 steps of 30

Whole runs of a GPT-2 of 12 layers of 768, 16 rows of 1,024 tokens, in this process. Two checkpoints lie between the
marks, which wait for the device; uploads that are still under way at the second go on after it. S3 is a server on this
machine (tests/support/s3server.py): versitygw, else moto, which is slower; its folder is in memory where /dev/shm has
room for it.
Without either, or without boto3, the checkpoints go to a folder (file://), and the line says so.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from attempts import attempt, variables
from commands import judge, say, seconds_left

from lmft_job.observers.events import Observer, StepDone

NEVER, ROOM = 1_000_000, 16 * 2**30
CONFIG = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}
SMALL = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": 64}


class Marks(Observer):
    """When some steps were done, the device's queue included."""

    def __init__(self, *steps: int) -> None:
        self.at = dict.fromkeys(steps, 0.0)
        self.checkpoints: list[int] = []

    def step(self, done: StepDone) -> None:
        """A step was asked for."""
        if done.step in self.at:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.at[done.step] = time.perf_counter()

    def checkpoint(self, step: int) -> None:
        """One is complete in storage."""
        self.checkpoints.append(step)


@contextmanager
def storage(folder: Path) -> Iterator[tuple[str, str]]:
    """An address for runs, and what it is."""
    if find_spec("boto3") is None:
        yield (folder / "out").as_uri(), "a folder: boto3 is not installed"
        return
    from support import s3server

    if s3server.find_versitygw() is None and find_spec("moto") is None:
        yield (folder / "out").as_uri(), "a folder: neither versitygw nor moto is here"
        return
    (folder / "server").mkdir()
    with s3server.running(folder / "server") as server, variables(server.environment()):
        yield f"s3://{s3server.BUCKET}/bench", "versitygw" if s3server.find_versitygw() else "moto"


def main() -> None:
    """Pairs of runs, as many as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    every, block = (10, 64) if tiny else (100, 1024)
    shared = Path("/dev/shm")  # noqa: S108
    memory = shared if shared.is_dir() and shutil.disk_usage(shared).free > ROOM else None
    with tempfile.TemporaryDirectory(dir=memory) as name, storage(Path(name)) as (address, kind):
        folder, seconds = Path(name), {"none": [], "checkpoints": []}  # type: ignore[var-annotated]
        number, longest = 0, 0.0
        while not number or (number < 3 and seconds_left() > 1.2 * longest and not tiny):
            began = time.perf_counter()
            order = ("none", "checkpoints") if number % 2 == 0 else ("checkpoints", "none")
            for loop in order:
                spec: dict[str, Any] = {
                    "model": {"fromConfig": SMALL if tiny else CONFIG, "tokenizer": {"trainVocabSize": 2000}},
                    "dataset": {"builtin": "PythonDocs", "blockSize": block, "testPercent": 2},
                    "training": {"maxSteps": 3 * every, "perDeviceBatchSize": 2 if tiny else 16,
                                 "learningRate": "1e-4", "compile": "Off"},
                    "evaluation": {"everySteps": NEVER},
                    "checkpoint": {"everySteps": every if loop == "checkpoints" else NEVER},
                    "sample": {"prompts": ["The"], "maxNewTokens": 1},
                    "resources": {"gpusPerNode": 0 if tiny else 1},
                    "output": {"uri": address},
                }  # fmt: skip
                marks = Marks(every, 3 * every)
                found = attempt(spec, folder, f"{loop}-{number}", marks)
                taken = marks.at[3 * every] - marks.at[every]
                seconds[loop].append(taken)
                say(
                    part="checkpoint", loop=loop, storage=kind, seconds=round(taken, 3), steps=2 * every,
                    checkpoints=marks.checkpoints, used=found.get("acceleration"), timings=found["timings"],
                )  # fmt: skip
            longest, number = max(longest, time.perf_counter() - began), number + 1
            ours, peer = (statistics.median(seconds[loop]) for loop in ("checkpoints", "none"))
            figures = {"ours": round(ours, 3), "peer": round(peer, 3), "unit": "s", "pairs": number}
            judge("checkpoint/s3", round(ours / peer, 3), tiny=tiny, storage=kind, every=every, **figures)


if __name__ == "__main__":
    main()
