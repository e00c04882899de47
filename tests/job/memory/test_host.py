"""The host's memory of a pod: by arithmetic, by ``lmft estimate``, and what a run really holds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmft_api.tasks import Task
from lmft_job.memory.estimating import Spread
from lmft_job.memory.host import DRIVER_BYTES, HOST_ERROR, PROCESS_BYTES, Host, advice, enough, host_of
from lmft_job.memory.parts import GIB, Parts
from lmft_job.memory.plan import Plan
from lmft_job.sharding.choose import Division
from lmft_job.training.batch import Batch, Checkpointing

WHOLE, OURS = Spread(Division.NONE, 1, 0), Spread(Division.ALL, 8, 0)
PLAN = Plan(Task.CAUSAL_LM, length=1000, batch=Batch(2), on_gpu=True)
PARTS = Parts(weights=4_000, gradients=4_000, optimiser=8_000, activations=400)
GPU_PROCESS = PROCESS_BYTES + DRIVER_BYTES


def host(plan: Plan = PLAN, parts: Parts = PARTS, spread: Spread = WHOLE, local: int = 1) -> Host:
    """Of a model of 1,000 weights, whose layers take 3 bytes for each token."""
    return host_of(plan, parts, 1_000, spread, local=local, width=3)


def test_each_process_loads_a_model_that_is_whole_in_each_and_the_first_one_that_is_divided() -> None:
    assert host(local=4).loading == 4 * 4_000
    assert host(spread=OURS, local=4).loading == 4_000
    assert host(local=4).processes == host(spread=OURS, local=4).processes == 4 * GPU_PROCESS


def test_a_checkpoints_copy_is_of_what_is_trained_and_of_the_optimisers_state_in_pinned_memory() -> None:
    share = replace(PARTS, weights=500, gradients=500, optimiser=1_000)
    adapter = Parts(weights=2_000, adapter=80, optimiser=160)

    assert host(local=4).copy == 2 * (4_000 + 8_000), "one process writes it"
    assert host(spread=OURS, parts=share, local=4).copy == 4 * 2 * (500 + 1_000), "each of the pod its own part"
    assert host(spread=OURS, parts=adapter, local=4).copy == 2 * (80 + 160), "an adapter is not divided"


def test_inputs_of_layers_that_wait_in_the_hosts_memory_are_counted_in_powers_of_two() -> None:
    offloaded = replace(PLAN, checkpointing=Checkpointing(10, offload=True))

    assert host(plan=replace(PLAN, checkpointing=Checkpointing(10))).inputs == 0
    assert host(plan=offloaded, local=2).inputs == 2 * 10 * 8_192, "of 6,000 bytes each"


def test_on_a_cpu_the_step_is_in_the_hosts_memory_too() -> None:
    found = host(plan=replace(PLAN, on_gpu=False))

    assert found.processes == PROCESS_BYTES
    assert found.training == PARTS.total + (4_000 + 400) // 4
    assert found.needed == PROCESS_BYTES + found.training
    assert found.beside == found.needed + 4_000 + 8_000


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (None, "set spec.resources.memory to 6Gi or more; where it is not set, pods ask for 2Gi"),
        (4 * GIB, "spec.resources.memory is 4.0 GiB, and the pod needs about 5.0 GiB: set at least 6Gi"),
        (5 * GIB, "training waits while checkpoints are written, unless spec.resources.memory is 9Gi: a copy of one"),
        (8 * GIB, ""),
    ],
)
def test_the_advice_names_the_number_to_set(memory: int | None, expected: str) -> None:
    told = advice(Host(processes=GIB, training=4 * GIB, copy=5 * GIB // 2), memory)

    assert told.startswith(expected)
    assert bool(told) == bool(expected)


def test_what_is_advised_holds_the_estimate_with_its_error() -> None:
    assert enough(5 * GIB) == "6Gi"
    assert enough(5 * GIB + 1) == "6656Mi"


TOKENS, ROWS = 64, 4
MODEL = {
    "model_type": "llama", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": TOKENS,
}  # fmt: skip
"""50 million weights: the step takes as much as the process without it."""
RUN = """
import atexit, sys
from pathlib import Path
from lmft_job.cli.__main__ import main

def tell():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(line.split()[1])

atexit.register(tell)
sys.argv = ["lmft", *sys.argv[1:]]
main()
"""


def _manifest(folder: Path, **resources: Any) -> Path:
    spec: dict[str, Any] = {
        "model": {"fromConfig": MODEL, "tokenizer": {"trainVocabSize": 1000}},
        "dataset": {"builtin": "PythonDocs", "textField": "answers.text", "blockSize": TOKENS, "split": "train[:20]"},
        "training": {"maxSteps": 2, "perDeviceBatchSize": ROWS},
        "sample": {"prompts": ["The import"], "maxNewTokens": 2},
    }
    if resources:
        spec["resources"] = resources
    body = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": "host"}, "spec": spec}
    path = folder / "host.yaml"
    path.write_text(json.dumps(body))
    return path


def _lmft(folder: Path, *arguments: str) -> list[str]:
    environment = os.environ | {"LMFT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_a_run_on_a_cpu_holds_what_was_estimated(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)

    printed = _lmft(tmp_path, "estimate", str(manifest), "-o", "json")
    held = 1024 * int(_lmft(tmp_path, "run", str(manifest), "--output", str(tmp_path / "runs"))[-1])

    estimated = json.loads("\n".join(printed[:-1]))
    needed = estimated["hostBytes"]["needed"]
    assert held * (1 - HOST_ERROR) < needed < held * (1 + HOST_ERROR), (needed, held)
    assert estimated["hostAdvice"] is None, "the manifest asks no cluster for anything"


def test_an_estimate_warns_of_a_pod_that_is_too_small_and_says_what_to_set(tmp_path: Path) -> None:
    printed = _lmft(tmp_path, "estimate", str(_manifest(tmp_path, memory="1Gi")))

    [line] = [line for line in printed if line.startswith("  host  ")]
    assert "(within 20%): libraries 896 MiB, training 8" in line
    [said] = [line for line in printed if "spec.resources.memory" in line]
    assert said.startswith("  spec.resources.memory is 1.0 GiB, and the pod needs about 1.7 GiB: set at least 2560Mi")
