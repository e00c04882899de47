"""What hostile input is tried, and what came of it.

A member is a module in ``members/`` with a function ``attacks()`` that yields :class:`Attack`: one real attempt each,
against the real reader, decision or protocol. Its ``attempt`` returns None when nothing came of it, and otherwise says
what did; an exception that leaves it is an effect too. ``make attacks`` tries them all and prints how many had one.
"""

import importlib
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attacks import members


@dataclass(frozen=True)
class Attack:
    """One attempt.

    Attributes:
        name: of it, for people; unique in its member.
        attempt: makes it; returns the effect in words, or None for none.
    """

    name: str
    attempt: Callable[[], str | None]


@dataclass(frozen=True)
class Tried:
    """An attack and its effect; empty for none."""

    member: str
    name: str
    effect: str


def member_names() -> list[str]:
    """Modules with attacks."""
    return sorted(module.name for module in pkgutil.iter_modules(members.__path__))


def try_all(member: str) -> Iterator[Tried]:
    """Make every attempt of a member."""
    module = importlib.import_module(f"attacks.members.{member}")
    for attack in module.attacks():
        yield Tried(member, attack.name, effect_of(attack))


def effect_of(attack: Attack) -> str:
    """Make one attempt; the effect in words, empty for none."""
    try:
        return attack.attempt() or ""
    except Exception as problem:  # noqa: BLE001 - whatever leaves a reader is what an attacker wants
        where = traceback.extract_tb(problem.__traceback__)[-1]
        return f"{type(problem).__name__}: {problem} ({where.filename}:{where.lineno})"[:300]
