"""The schedule of faults."""

from collections import Counter
from itertools import pairwise

import pytest
from cluster.chaos.schedule import OUTAGES, Fault, Kind, schedule

DURATIONS = {Kind.KUBELET: 60.0, Kind.S3: 30.0, Kind.API: 120.0}


def test_a_seed_gives_the_same_faults_again_and_another_seed_others() -> None:
    assert schedule(7, 50, DURATIONS, 20) == schedule(7, 50, DURATIONS, 20)
    assert schedule(7, 50, DURATIONS, 20) != schedule(8, 50, DURATIONS, 20)


@pytest.mark.parametrize("seed", range(20))
def test_every_schedule_is_one_that_can_be_done(seed: int) -> None:
    faults = schedule(seed, 50, DURATIONS, 20)
    assert [fault.number for fault in faults] == list(range(1, 51))
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    outages = {kind: [fault for fault in faults if fault.kind == kind] for kind in OUTAGES}
    for ours in outages.values():
        assert all(later.at >= earlier.end + 20 for earlier, later in pairwise(ours))
    away = [(fault.at, fault.end) for fault in outages[Kind.API]]
    deleted = [fault.at for fault in faults if fault.kind == Kind.POD]
    assert not [moment for moment in deleted for begin, end in away if begin <= moment < end]
    assert {fault.seconds for fault in faults if fault.kind not in OUTAGES} == {0.0}


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_and_single_pods_are_hit_most(seed: int) -> None:
    counts = Counter(fault.kind for fault in schedule(seed, 50, DURATIONS, 20))
    assert min(counts.values()) >= 4
    assert {kind for kind, _ in counts.most_common(2)} == {Kind.POD, Kind.CONTAINER}


def test_the_first_six_are_one_of_each() -> None:
    assert {fault.kind for fault in schedule(1, 6, DURATIONS, 500)} == set(Kind)


@pytest.mark.parametrize(("choice", "target"), [(0.0, "a"), (0.34, "b"), (0.99, "c")])
def test_the_choice_picks_a_target_whatever_order_they_come_in(choice: float, target: str) -> None:
    assert Fault(1, Kind.POD, 0.0, 0.0, choice).pick(["c", "a", "b"]) == target
