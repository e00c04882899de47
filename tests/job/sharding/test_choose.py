"""Whether weights are divided, by what a rank would have to hold."""

import pytest

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec.resolved import Settings, resolve
from lmft_job.distributed.world import ALONE, World
from lmft_job.sharding.choose import Division, Weights, choose, undividable

GB = 10**9
NODE = World(0, 8, 0, 8, 0, 1)
TWO_NODES = World(0, 16, 0, 8, 0, 2)
TWO_CPUS = World(0, 2, 0, 1, 0, 2)


def settings(**training: object) -> Settings:
    spec = {
        "task": "CausalLM",
        "model": {"name": "org/model"},
        "dataset": {"files": ["file:///texts.jsonl"], "format": "json"},
        "training": training,
    }
    return resolve(parse_spec(spec))


CASES = {
    "a small model is copied": ({}, Weights(1_100_000_000), NODE, 80 * GB, Division.NONE),
    "one that takes more than half of a GPU is divided": ({}, Weights(3_000_000_000), NODE, 80 * GB, Division.ALL),
    "within a node, where its share fits": ({}, Weights(8_000_000_000), TWO_NODES, 80 * GB, Division.NODES),
    "over all nodes, where it does not": ({}, Weights(30_000_000_000), TWO_NODES, 80 * GB, Division.ALL),
    "frozen weights in BF16 take a ninth": (
        {"adapter": {}}, Weights(80_000_000, 8_000_000_000, 2), NODE, 80 * GB, Division.NONE,
    ),
    "and are divided where they are many": (
        {"adapter": {}}, Weights(400_000_000, 70_000_000_000, 2), NODE, 80 * GB, Division.ALL,
    ),
    "CPUs copy": ({}, Weights(3_000_000_000), TWO_CPUS, None, Division.NONE),
    "CPUs divide if asked": ({"parallelism": "FSDP"}, Weights(1_000), TWO_CPUS, None, Division.ALL),
    "FSDP divides within nodes too": ({"parallelism": "FSDP"}, Weights(1_000), TWO_NODES, 80 * GB, Division.NODES),
    "DDP copies, come what may": ({"parallelism": "DDP"}, Weights(30_000_000_000), NODE, 80 * GB, Division.NONE),
    "one process holds all": ({"parallelism": "FSDP"}, Weights(30_000_000_000), ALONE, 80 * GB, Division.NONE),
    "4 bits are copied": (
        {"adapter": {}, "quantization": "NF4"}, Weights(400_000_000, 90_000_000_000, 1), NODE, 80 * GB, Division.NONE,
    ),
    "Adafactor is copied by Auto": (
        {"optimizer": "Adafactor"}, Weights(30_000_000_000), NODE, 80 * GB, Division.NONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_weights_are_divided_where_a_copy_would_take_more_than_half_of_a_device(case: str) -> None:
    training, weights, world, memory, expected = CASES[case]

    assert choose(settings(**training), weights, world, memory) == expected


def test_what_does_not_go_with_divided_weights_is_named_all_at_once() -> None:
    optimizer, precision = undividable(settings(optimizer="Adafactor", precision="FP16"))

    assert optimizer.startswith("spec.training.optimizer: Adafactor")
    assert precision.startswith("spec.training.precision: ")
    assert undividable(settings(optimizer="SGD", precision="BF16")) == []
