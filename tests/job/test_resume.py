"""A run that is killed, however often and whenever, ends as if nothing had happened."""

import random
from pathlib import Path

import pytest
from job.forked import KILL, attempt, complete, outcome, slow_uploads, toy_spec

# What is waited for, and how often at most it may come before the kill.
MOMENTS = [
    ("step", 6),
    ("step", 6),
    ("put checkpoints", 20),
    ("put checkpoints", 20),
    ("evaluation", 1),
    ("checkpoint", 1),
]


@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM"])
def test_a_run_killed_at_ten_random_moments_ends_bit_equal(task: str, tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, task, training={"epochs": 4}, checkpoint={"everySteps": 3})
    complete(tmp_path, spec, name="calm")
    chance = random.Random(task)
    killed_in = []
    while len(killed_in) < 10:
        child = attempt(tmp_path, spec, len(killed_in) + 1, patch=slow_uploads(0.003))
        moment, most = chance.choice(MOMENTS)
        patience = chance.randint(1, most)
        for line in child.events():
            patience -= line.startswith(moment)
            if not patience:
                child.signal(KILL)
                killed_in.append(moment)
                break
        assert child.wait() == -KILL, "it ended before its moment came"
    last = complete(tmp_path, spec, 11)
    assert {"step", "put checkpoints"} <= set(killed_in)
    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
