"""Tokens/s of several ranks, DDP and FSDP2: ours against plain Trainer, as torchrun starts it, and against one process.

    python bench/ranks.py                     # 2 processes of 1 thread each, gloo, on this machine
    python bench/ranks.py --parallelism FSDP --model llama
    python bench/ranks.py --ranks 4 --width 256 --steps 40 --parallelism FSDP

The processes of a kind live through all rounds, and ours and the peer's take turns in them, so that what slows the
machine down slows both. Only Trainer's loop is timed. Besides the seconds of the wall, those of the CPU are summed over
the processes: they say nothing of waiting, but what others do on the machine changes them little.

The peer of DDP is Trainer's own, as ``torchrun`` starts it. Trainer's ``fsdp`` argument is ignored without a GPU; the
peer of FSDP2 is a model that transformers divides when it loads it (``distributed_config``), in plain Trainer. Of a
Llama it divides each layer by itself, as its plan for this type says; a GPT-2, which has none, it gathers as a whole.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train as single
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockWriter
from lmft_job.distributed.group import SOLO, Group
from lmft_job.distributed.process_group import join
from lmft_job.distributed.world import World
from lmft_job.sharding.divide import divide
from lmft_job.training.batch import planned_batch
from lmft_job.training.loop import TrainingInputs

KINDS = ["DDP", "FSDP"]
MODEL = "model"
Loop = Callable[[argparse.Namespace], Any]


def one_rank(options: argparse.Namespace) -> None:
    """Train in this process, round by round; rank 0 prints [wall, CPU of all] seconds of each loop in each round."""
    torch.set_num_threads(1)
    quiet_transformers()
    world = World.from_environment(os.environ)
    group = SOLO if world.alone else join(world, cuda=False, seconds=300)
    loops = loops_of(options, group)
    warm = argparse.Namespace(**{**vars(options), "steps": 5})
    for loop in loops.values():
        loop(warm)
    rounds = []
    for turn in range(options.rounds):
        names = list(loops) if turn % 2 else list(reversed(loops))
        rounds.append({name: measured(loops[name], options, group) for name in names})
    if world.main:
        print(json.dumps(rounds))
    group.wait()
    sys.stdout.flush()
    os._exit(0)


def loops_of(options: argparse.Namespace, group: Group) -> dict[str, Loop]:
    """What takes turns in a process: ours and, with others, the peer's."""
    path, sharded = Path(options.path), options.kind == "FSDP"
    folder = path.parent / f"{options.kind}-{group.world.size}-{group.world.rank}"

    trained: list[Any] = []

    def adjust(job: TrainingInputs) -> TrainingInputs:
        if sharded:
            divide(job.model, group.world, torch.device("cpu"), within_nodes=False)
        batch = planned_batch(job.batch.rows, options.batch * group.world.size, group.world)
        trained[:] = [job.model]
        return replace(job, group=group, batch=batch)

    def of_peer(options: argparse.Namespace) -> Any:
        whole = single.model_of(options)
        parts = DistributedConfig(fsdp_size=group.world.size)
        trained[:] = [type(whole).from_pretrained(path.parent / MODEL, distributed_config=parts) if sharded else whole]
        return trained[0]

    def ours(options: argparse.Namespace) -> Any:
        seconds = single.ours(options, path, folder / "ours", adjust=adjust)
        require_one_model(trained[0], group, sharded)
        return seconds

    def peer(options: argparse.Namespace) -> Any:
        seconds = single.tutorial(options, path, folder / "peer", make_model=of_peer)
        require_one_model(trained[0], group, sharded)
        return seconds

    return {"ours": ours} if group.world.alone else {"ours": ours, "peer": peer}


def require_one_model(model: Any, group: Group, sharded: bool) -> None:
    """End unless the processes have trained one model together: a peer that exchanges nothing would be fast."""
    if sharded and not all(isinstance(weight, DTensor) for weight in model.parameters()):
        raise SystemExit("the model was not divided")
    total = sum(float((w.full_tensor() if isinstance(w, DTensor) else w).detach().sum()) for w in model.parameters())
    if len({float(found[0]) for found in group.gather(np.array([total]))}) > 1:
        raise SystemExit("the processes have trained different models")


def measured(loop: Loop, options: argparse.Namespace, group: Group) -> list[float]:
    """Seconds of Trainer's loop: of the wall, and of the CPU in all processes."""

    def clock() -> Any:
        return np.array([time.perf_counter(), time.process_time()])

    group.wait()
    wall, used = loop(argparse.Namespace(**{**vars(options), "clock": clock}))
    return [float(wall), float(group.sums(np.array([used]))[0])]


def rounds_of(options: argparse.Namespace, kind: str, ranks: int, folder: Path) -> list[dict[str, list[float]]]:
    """Start the processes of a kind and read what rank 0 measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, __file__, *sys.argv[1:], "--kind", kind, "--path", str(folder / "blocks.arrow")]
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
        raise SystemExit(f"{kind} failed on {ranks} ranks")
    found: list[dict[str, list[float]]] = json.loads(outputs[0].splitlines()[-1])
    return found


def command_line() -> argparse.ArgumentParser:
    """The options of the benchmark of one process, and how many there are."""
    parser = single.command_line()
    parser.set_defaults(width=128, steps=20, rounds=6, precision="FP32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--parallelism", choices=KINDS, action="append", help="both by default")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    return parser


def ratio(label: str, ours: list[float], others: list[float]) -> None:
    """Print the median of a round's ratio, and its spread; above 1 ours is faster."""
    found = sorted(other / mine for mine, other in zip(ours, others, strict=True))
    print(f"{label:42} {statistics.median(found):.3f} ({found[0]:.3f}-{found[-1]:.3f}, {len(found)} rounds)")


def main() -> None:
    """Measure and print."""
    options = command_line().parse_args()
    if options.kind:
        one_rank(options)
    with tempfile.TemporaryDirectory() as name:
        folder, ranks = Path(name), options.ranks
        rows = options.steps * options.batch * ranks
        with BlockWriter(folder / "blocks.arrow", options.block, options.vocabulary) as writer:
            writer.add(np.random.default_rng(0).integers(0, options.vocabulary, rows * options.block))
        single.model_of(options).save_pretrained(folder / MODEL)
        alone = [turn["ours"] for turn in rounds_of(options, "alone", 1, folder)]
        tokens = options.steps * options.batch * options.block
        print(f"1 process: {tokens / statistics.median(wall for wall, _ in alone):,.0f} tokens/s")
        for kind in options.parallelism or KINDS:
            rounds = rounds_of(options, kind, ranks, folder)
            walls, used = ({loop: [turn[loop][clock] for turn in rounds] for loop in rounds[0]} for clock in (0, 1))
            rates = [f"{loop} {tokens * ranks / statistics.median(found):,.0f}" for loop, found in walls.items()]
            print(f"{kind}, {ranks} processes, tokens/s: {', '.join(rates)}")
            ratio("  ratio to the peer", walls["ours"], walls["peer"])
            ratio("  ratio to the peer by CPU seconds", used["ours"], used["peer"])
            ratio("  ratio to one process, not at one time", walls["ours"], [ranks * wall for wall, _ in alone])


if __name__ == "__main__":
    main()
