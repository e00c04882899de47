"""Which fault comes when: drawn from a seed, so that a run of faults can be had again. Pure."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """What can happen to a cluster."""

    POD = "pod deleted"
    CONTAINER = "container killed"
    KUBELET = "kubelet stopped"
    OPERATOR = "operator killed"
    S3 = "S3 stopped"
    API = "API server stopped"


OUTAGES = (Kind.KUBELET, Kind.S3, Kind.API)
"""Faults that last; the others are over at once."""
FREQUENT = (Kind.POD, Kind.CONTAINER)
"""What happens to single pods comes thrice as often as the rest."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        number: from 1, in the order of their beginnings.
        kind: what happens.
        at: seconds after the first moment.
        seconds: how long it lasts; 0 for what is over at once.
        choice: from 0 up to 1, picks the target among those there are.
    """

    number: int
    kind: Kind
    at: float
    seconds: float
    choice: float

    @property
    def end(self) -> float:
        """When it is over, seconds after the first moment."""
        return self.at + self.seconds

    def pick(self, candidates: Collection[str]) -> str:
        """The target among candidates, whatever order they come in."""
        return sorted(candidates)[int(self.choice * len(candidates))]

    def instead(self) -> "list[Fault]":
        """What can be done in its place when it finds nothing to hit: what is over at once, and so breaks no order."""
        return [replace(self, kind=kind) for kind in Kind if kind not in (*OUTAGES, self.kind)]


def schedule(
    seed: int, count: int, durations: Mapping[Kind, float], pause: float, kinds: Collection[Kind] = tuple(Kind)
) -> list[Fault]:
    """Faults in the order of their beginnings.

    The time between two beginnings is exponential, so that most come close together and some alone. Outages of
    different components may overlap, and pods die in the midst of them; two outages of one component are at least a
    pause apart, and no pod is deleted while there is no API server to ask.

    Args:
        seed: the same gives the same.
        count: how many.
        durations: seconds, for each outage.
        pause: mean time between two beginnings, seconds.
        kinds: which faults there may be. The first ones are one of each.
    """
    chance = random.Random(seed)
    hand: list[Kind] = []
    busy: dict[Kind, float] = {}
    faults: list[Fault] = []
    now = 0.0
    while len(faults) < count:
        now += chance.expovariate(1 / pause)
        if len(hand) < len(kinds):
            hand += _deal(chance, kinds)
        possible = [kind for kind in hand if _possible(kind, now, busy)]
        if not possible:
            now = min(end for end in busy.values() if end > now)
            continue
        kind = possible[0]
        hand.remove(kind)
        fault = Fault(len(faults) + 1, kind, now, durations[kind] if kind in OUTAGES else 0.0, chance.random())
        if kind in OUTAGES:
            busy[kind] = fault.end + pause
        if kind == Kind.API:
            busy[Kind.POD] = fault.end
        faults.append(fault)
    return faults


def _deal(chance: random.Random, kinds: Collection[Kind]) -> list[Kind]:
    each = [kind for kind in Kind if kind in kinds]
    more = [kind for kind in each if kind in FREQUENT] * 2
    return chance.sample(each, len(each)) + chance.sample(more, len(more))


def _possible(kind: Kind, now: float, busy: Mapping[Kind, float]) -> bool:
    return busy.get(kind, 0.0) <= now
