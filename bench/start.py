"""Start: from the start of the process to the end of the first optimiser step, beside a bare Trainer script.

Ours is ``lmft run`` of the quickstart, its data prepared before; the peer a script with the same model, rows and
arguments, which evaluates and writes nothing. Both run in turns. The peer is also run as if peft and bitsandbytes were
not installed: transformers imports both wherever they are.
"""

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"
BEGAN = "LMFT_BENCH_BEGAN"
_IMPORT = re.compile(rb"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def first_step_ends(phases: dict[str, float]) -> None:
    """From now on the process prints its figures and ends with its first step; call it once torch is there."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def end(*_: Any) -> None:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        used = os.times()
        figures = {"wall": time.time() - float(os.environ[BEGAN]), "cpu": sum(used[:4]), "phases": phases}
        print(f"\n{json.dumps(figures)}", flush=True)
        os._exit(0)

    register_optimizer_step_post_hook(end)


def run_ours(folder: Path, manifest: Path) -> None:
    """``lmft run`` of the quickstart, to its first step."""
    from lmft_job.attempt.context import RunContext
    from lmft_job.cli.__main__ import main

    phases = {"start": time.process_time()}
    timed = RunContext.phase

    @contextmanager
    def phase(self: RunContext, name: str) -> Iterator[None]:
        began = time.process_time()
        with timed(self, name):
            yield
        phases[name] = time.process_time() - began
        if name == "imports":
            first_step_ends(phases)

    RunContext.phase = phase  # type: ignore[method-assign]
    sys.argv = ["lmft", "run", str(manifest), "--overwrite", "--output", str(folder / "runs")]
    main()


def run_bare(folder: Path, *, hide: bool, gpu: bool) -> None:
    """The same training by transformers alone, as its guides write it."""
    if hide:
        for name in ("peft", "bitsandbytes"):
            sys.modules[name] = None  # type: ignore[assignment]
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    rows = torch.from_numpy(np.load(folder / "rows.npy"))
    config = GPT2Config(n_layer=3, n_head=4, n_embd=128, n_positions=128, vocab_size=2000)
    arguments = TrainingArguments(
        output_dir=str(folder / "bare"), num_train_epochs=7, learning_rate=2e-3, per_device_train_batch_size=4,
        warmup_steps=0.1, save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=not gpu,
    )  # fmt: skip
    first_step_ends({})
    data: Any = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=data).train()


class FailedError(Exception):
    """A child ended before its first step; has what it said last."""


def child(kind: str, folder: Path, *options: str, gpu: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run one to its first step.

    Raises:
        FailedError: it did not get there.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        BEGAN: str(time.time()), "LMFT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1",
        "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
    }  # fmt: skip
    command = [sys.executable, *options, str(Path(__file__).resolve()), "--child", kind, "--folder", str(folder)]
    done = subprocess.run([*command, *(["--gpu"] if gpu else [])], env=environment, check=False, capture_output=True)
    if done.returncode or not done.stdout.strip():
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-3000:]
        raise FailedError(f"{kind} ended with {done.returncode} before its first step:\n{said}")
    return done


def figures(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What a child printed last."""
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def imports_by_package(folder: Path, most: int = 12) -> list[tuple[str, float, int]]:
    """Names, seconds and modules of the packages that ours spends the longest on importing."""
    seconds: collections.Counter[str] = collections.Counter()
    modules: collections.Counter[str] = collections.Counter()
    for own, name in _IMPORT.findall(child("ours", folder, "-X", "importtime").stderr):
        package = name.decode().split(".")[0]
        seconds[package] += int(own)
        modules[package] += 1
    return [(name, spent / 1e6, modules[name]) for name, spent in seconds.most_common(most)]


def main() -> None:
    """Measure and print; as a child, run one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="train on the GPU, both")
    parser.add_argument("--child", choices=["ours", "bare", "bare-lean"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "ours":
        run_ours(options.folder, on_gpu(options.folder) if options.gpu else QUICKSTART)
    elif options.child:
        run_bare(options.folder, hide=options.child == "bare-lean", gpu=options.gpu)
    else:
        try:
            compare(options.rounds, gpu=options.gpu)
        except FailedError as error:
            sys.exit(f"bench/start.py: {error}")


def on_gpu(folder: Path) -> Path:
    """The quickstart's manifest, which asks for a GPU."""
    import yaml

    content = yaml.safe_load(QUICKSTART.read_text())
    content["spec"]["resources"] = {"gpusPerNode": 1}
    path = folder / "gpu.yaml"
    path.write_text(json.dumps(content))  # YAML too, and every text in quotes
    return path


def prepare_rows(folder: Path) -> None:
    """Rows for the bare script, as many as the quickstart has."""
    import numpy as np

    np.save(folder / "rows.npy", np.random.default_rng(0).integers(0, 2000, (792, 128)))


def compare(rounds: int, *, gpu: bool) -> None:
    """Run all in turns, and print medians."""
    kinds = {"ours": "lmft run", "bare": "bare Trainer", "bare-lean": "the same without peft, bitsandbytes"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_rows(folder)
        for kind in kinds:
            child(kind, folder, gpu=gpu)  # prepares the data, and warms the caches
        seen: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for turn in range(rounds):
            for kind in kinds if turn % 2 else reversed(kinds):
                seen[kind].append(figures(child(kind, folder, gpu=gpu)))
        packages = imports_by_package(folder)

    def median(kind: str, of: str) -> float:
        return statistics.median(one[of] for one in seen[kind])

    for kind, label in kinds.items():
        print(f"{label:36} {median(kind, 'wall'):6.2f} s   CPU {median(kind, 'cpu'):6.2f} s")
    for of in ("wall", "cpu"):
        ratios = [f"{median('ours', of) / median(kind, of):.2f} of {kinds[kind]}" for kind in list(kinds)[1:]]
        print(f"ratio by {of:4} {'; '.join(ratios)}")
    phases = {name: statistics.median(one["phases"].get(name, 0) for one in seen["ours"]) for name in
              seen["ours"][0]["phases"]}  # fmt: skip
    rest = median("ours", "cpu") - sum(phases.values())
    print("ours, CPU: " + ", ".join(f"{name} {spent:.2f} s" for name, spent in phases.items()), end="")
    print(f", else with the first step {rest:.2f} s")
    print("imports:   " + ", ".join(f"{name} {spent:.2f} s ({count})" for name, spent, count in packages))


if __name__ == "__main__":
    main()
