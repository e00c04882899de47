"""Tokens/s of several ranks by DDP: ours against plain Trainer under torchrun's variables, and against one process.

    python bench/ranks.py                     # 2 processes of 1 thread each, gloo, on this machine
    python bench/ranks.py --ranks 4 --width 256 --steps 40

Every round starts all of them anew, in alternating order; only Trainer's loop is timed, in each process, after its
first steps. On a machine whose cores others use, the ratio to one process says little; that to the peer stands.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train as single

from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockWriter
from lmft_job.distributed.group import SOLO
from lmft_job.distributed.process_group import join
from lmft_job.distributed.world import World
from lmft_job.training.batch import planned_batch


def one_rank(options: argparse.Namespace) -> None:
    """Train in this process; rank 0 prints its seconds."""
    torch.set_num_threads(1)
    quiet_transformers()
    world = World.from_environment(os.environ)
    group = SOLO if world.alone else join(world, cuda=False, seconds=120)
    path, folder = Path(options.path), Path(options.path).parent / f"{options.loop}-{world.rank}"
    if options.loop == "ours":
        single.TrainingInputs = _divided(single.TrainingInputs, group, options.batch * world.size)
    run = single.ours if options.loop == "ours" else single.tutorial
    run(argparse.Namespace(**{**vars(options), "steps": 5}), path, folder)
    group.wait()
    seconds = run(options, path, folder)
    if world.main:
        print(json.dumps(seconds))
    group.wait()
    sys.stdout.flush()
    os._exit(0)


def _divided(kind: Any, group: Any, rows: int) -> Any:
    """Makes the inputs of one rank of the group."""

    def made(**fields: Any) -> Any:
        job = kind(**fields)
        return replace(job, group=group, batch=planned_batch(job.batch.rows, rows, group.world))

    return made


def seconds_of(options: argparse.Namespace, loop: str, ranks: int, path: Path) -> float:
    """Start the ranks of a loop and read rank 0's seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, __file__, *sys.argv[1:], "--loop", loop, "--path", str(path)]
    started = []
    for rank in range(ranks):
        several = {
            "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | (several if ranks > 1 else {})
        started.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{loop} failed on {ranks} ranks")
    return float(json.loads(outputs[0].splitlines()[-1]))


def command_line() -> argparse.ArgumentParser:
    """The options of the benchmark of one process, and how many there are."""
    parser = single.command_line()
    parser.set_defaults(width=128, steps=40, rounds=3, precision="FP32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--loop", choices=["ours", "tutorial"], help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Measure and print."""
    options = command_line().parse_args()
    if options.loop:
        one_rank(options)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "blocks.arrow"
        rows = options.steps * options.batch * options.ranks
        with BlockWriter(path, options.block, options.vocabulary) as writer:
            writer.add(np.random.default_rng(0).integers(0, options.vocabulary, rows * options.block))
        cases = [("ours", options.ranks), ("tutorial", options.ranks), ("ours", 1)]
        rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        for turn in range(options.rounds):
            for loop, ranks in cases if turn % 2 else reversed(cases):
                tokens = options.steps * options.batch * ranks * options.block
                rates[loop, ranks].append(tokens / seconds_of(options, loop, ranks, path))
    for (loop, ranks), found in rates.items():
        print(f"DDP {loop:9} {ranks} process(es)  {statistics.median(found):12,.0f} tokens/s")
    pairs = zip(rates["ours", options.ranks], rates["tutorial", options.ranks], strict=True)
    print(f"ratio to plain Trainer  {statistics.median(mine / theirs for mine, theirs in pairs):.3f}")
    pairs = zip(rates["ours", options.ranks], rates["ours", 1], strict=True)
    print(f"ratio to one process    {statistics.median(mine / theirs for mine, theirs in pairs):.3f}")


if __name__ == "__main__":
    main()
