"""Rules that a type alone cannot express, each written for the API server (CEL) and for Python."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal as Exact
from typing import Any

from lmft_api.schema.patterns import DECIMAL_PATTERN, PATTERN_HINTS, QUANTITY_PATTERN, matches

RULES_KEY = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """A rule that spans fields, written twice: in CEL for the API server and in Python for everything else.

    Attributes:
        cel: CEL expression over ``self``; must be true.
        message: what is wrong and what to do.
        holds: the same check on the parsed object.
        field: camelCase name of the field to report, relative to the object; empty for the object itself.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def validation(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})


def between(low: float, high: float, *, above: bool = False) -> Callable[[str | None], bool]:
    """A check for quoted decimals: ``low <= value <= high``, or ``low < value`` with ``above``; None passes."""

    def holds(value: str | None) -> bool:
        if value is None or not matches(DECIMAL_PATTERN, value):
            return True
        number = float(value)
        return (low < number if above else low <= number) and number <= high

    return holds


def decimal_rule(field: str, attribute: str, low: float, high: float, *, above: bool = False) -> Rule:
    """Bounds for a quoted decimal, as CEL and as Python."""
    inside = between(low, high, above=above)
    comparison = ">" if above else ">="
    return Rule(
        cel=f"!has(self.{field}) || (double(self.{field}) {comparison} {low!r} && double(self.{field}) <= {high!r})",
        message=f"must be {'greater than' if above else 'at least'} {low:g} and at most {high:g}",
        holds=lambda value: inside(getattr(value, attribute)),
        field=field,
    )


def total(cel: str, sizes: Callable[[Any], Iterable[int]], most: int, field: str, hint: str) -> Rule:
    """A limit on the total length of texts, in characters, as CEL (sum of their sizes) and as Python (their sizes)."""
    return Rule(
        cel=f"({cel}) <= {most}",
        message=f"must be at most {most:,} characters in all; {hint}",
        holds=lambda value: sum(sizes(value)) <= most,
        field=field,
    )


_MULTIPLES = {"": Exact(1), "m": Exact("0.001")} | {
    suffix: Exact(base) ** power
    for base, suffixes in ((1000, ("k", "M", "G", "T", "P", "E")), (1024, ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")))
    for power, suffix in enumerate(suffixes, 1)
}
_SUFFIX_LETTERS = "".join(_MULTIPLES)


def amount(quantity: str) -> Exact:
    """A Kubernetes quantity as a number of CPUs or bytes.

    Raises:
        ValueError: it does not match :data:`QUANTITY_PATTERN`.
    """
    if not matches(QUANTITY_PATTERN, quantity):
        raise ValueError(f'"{quantity}" {PATTERN_HINTS[QUANTITY_PATTERN]}')
    number = quantity.rstrip(_SUFFIX_LETTERS)
    return Exact(number) * _MULTIPLES[quantity[len(number) :]]


def quantity_rule(field: str, attribute: str, least: str, most: str) -> Rule:
    """Bounds for a quantity, as CEL and as Python: Kubernetes reads 0 in some fields as "no limit"."""

    def holds(value: Any) -> bool:
        given = getattr(value, attribute)
        return given is None or not matches(QUANTITY_PATTERN, given) or amount(least) <= amount(given) <= amount(most)

    bounds = ((">=", least), ("<=", most))
    inside = " && ".join(f"quantity(self.{field}).compareTo(quantity('{bound}')) {sign} 0" for sign, bound in bounds)
    return Rule(
        cel=f"!has(self.{field}) || !isQuantity(self.{field}) || ({inside})",
        message=f"must lie between {least} and {most}; omit it for the platform's default",
        holds=holds,
        field=field,
    )


def at_most_one(first: str, second: str, remedy: str) -> Rule:
    """Two mutually exclusive fields."""
    return Rule(
        cel=f"!(has(self.{first}) && has(self.{second}))",
        message=f"{first} and {second} are mutually exclusive; {remedy}",
        holds=lambda value: getattr(value, _snake(first)) is None or getattr(value, _snake(second)) is None,
    )


def exactly_one(*fields: str) -> Rule:
    """Exactly one of several fields."""
    terms = ", ".join(f"has(self.{field})" for field in fields)
    names = ", ".join(fields[:-1]) + f" and {fields[-1]}"
    return Rule(
        cel=f"[{terms}].exists_one(present, present)",
        message=f"set exactly one of {names}",
        holds=lambda value: sum(getattr(value, _snake(field)) is not None for field in fields) == 1,
    )


def only_with(field: str, condition_cel: str, condition: Callable[[Any], bool], message: str) -> Rule:
    """A field that is allowed only under a condition."""
    return Rule(
        cel=f"!has(self.{field}) || ({condition_cel})",
        message=message,
        holds=lambda value: getattr(value, _snake(field)) is None or condition(value),
        field=field,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
