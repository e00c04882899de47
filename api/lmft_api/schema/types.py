"""What every type of the contract shares: naming, strictness, and the rules that a type alone cannot say."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal as Exact
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

RULES_KEY = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"


@dataclass(frozen=True)
class Rule:
    """A rule that spans fields, said twice: as CEL for the API server and as Python for everyone else.

    Attributes:
        cel: expression over ``self``; must be true.
        message: what is wrong and what to do.
        holds: the same test on the parsed object.
        field: camelCase name of the field to blame, relative to the object; empty for the object itself.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def validation(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})


class ApiModel(BaseModel):
    """Base of all types: camelCase outside, snake_case inside, no unknown fields, no silent conversions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(core)
        handler.resolve_ref_schema(reference)[RULES_KEY] = list(cls.rules)
        return reference

    @classmethod
    def parse(cls, document: Any) -> Self:
        """The object from plain JSON data, by JSON's rules: enums from text, no other conversions.

        Raises:
            pydantic.ValidationError: with every problem; :mod:`lmft_api.manifest.validation` words them for people.
        """
        return cls.model_validate_json(json.dumps(document, allow_nan=False), by_alias=True, by_name=False)

    def to_json(self) -> dict[str, Any]:
        """The object as it stands in a manifest: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def list_map(key: str) -> dict[str, Any]:
    """Schema of a list whose entries are told apart by one field, so that server-side apply merges them."""
    return {LIST_TYPE: "map", LIST_KEYS: [key]}


DECIMAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUALIFIED_NAME_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
IMPORT_PATH_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
FIELD_PATH_PATTERN = r"^[^. \t\n\f\r]+(\.[^. \t\n\f\r]+)*$"
MOUNT_PATH_PATTERN = r"^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$"
# Blanks are listed and not written \s: Go means the ASCII ones by it, Python and Rust mean all of Unicode's. A blank
# may stand in a key, but at its end it is a slip.
_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_KEY = r"[^\t\n\f\r]*[^ \t\n\f\r]"
SOURCE_PATTERN = rf"^({_BUCKET}(/({_KEY})?)?|file://{_KEY}|[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?)$"
HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
STORAGE_URI_PATTERN = rf"^({_BUCKET}(/({_KEY})?)?|file:///({_KEY})?)$"
FILE_URI_PATTERN = rf"^({_BUCKET}/{_KEY}|file://{_KEY})$"
SECRET_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"  # noqa: S105 - the name of a key
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
IMAGE_PATTERN = r"^[a-z0-9][A-Za-z0-9._:/@-]*$"

Text = Annotated[str, StringConstraints(max_length=253, min_length=1)]
Decimal = Annotated[str, StringConstraints(pattern=DECIMAL_PATTERN, max_length=24)]
DnsLabel = Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, max_length=63)]
DnsSubdomain = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=32)]
QualifiedName = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME_PATTERN, max_length=253)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
ImportPath = Annotated[str, StringConstraints(pattern=IMPORT_PATH_PATTERN, max_length=253)]
Source = Annotated[str, StringConstraints(pattern=SOURCE_PATTERN, max_length=1024)]
StorageUri = Annotated[str, StringConstraints(pattern=STORAGE_URI_PATTERN, max_length=1024)]
HubId = Annotated[str, StringConstraints(pattern=HUB_ID_PATTERN, max_length=200)]
FieldPath = Annotated[str, StringConstraints(pattern=FIELD_PATH_PATTERN, max_length=253)]
FileUri = Annotated[str, StringConstraints(pattern=FILE_URI_PATTERN, max_length=1024)]
MAX_JSON_BYTES, MAX_JSON_DEPTH = 16 * 1024, 8


def levels(value: Any) -> int:
    """How deep a JSON value nests: 0 for a scalar, 1 for a list of scalars; without recursion, whatever it is."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [part for outer in level for part in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _small_json(value: dict[str, Any]) -> dict[str, Any]:
    if (depth := levels(value)) > MAX_JSON_DEPTH:
        raise ValueError(f"nests {depth} levels deep, at most {MAX_JSON_DEPTH} are read; a configuration has 2 or 3")
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    if size > MAX_JSON_BYTES:
        raise ValueError(f"is {size:,} bytes as JSON, at most {MAX_JSON_BYTES:,} are read; a vocabulary goes elsewhere")
    return value


SmallJson = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_small_json)]
"""An object of whatever content, in which nobody can hide much: the API server bounds only its number of keys."""

PATTERN_HINTS: dict[str, str] = {
    DECIMAL_PATTERN: 'must be quoted decimal text such as "2e-5" or "0.01"',
    DNS_LABEL_PATTERN: "must be a DNS label: lower-case letters, digits and '-'",
    DNS_SUBDOMAIN_PATTERN: "must be a Kubernetes name: lower-case letters, digits, '-' and '.'",
    QUANTITY_PATTERN: 'must be a Kubernetes quantity such as "4", "500m" or "16Gi"',
    QUALIFIED_NAME_PATTERN: (
        "must be a Kubernetes qualified name such as example.com/team, at most 63 characters after the '/'"
    ),
    LABEL_VALUE_PATTERN: "must be a Kubernetes label value: letters, digits, '-', '_' and '.'",
    IMPORT_PATH_PATTERN: "must be a Python import path such as package.module.ClassName",
    SOURCE_PATTERN: "must be a hub id such as distilbert/distilgpt2, s3://bucket/folder or file:///folder",
    STORAGE_URI_PATTERN: "must be s3://bucket/prefix or file:///absolute/folder",
    HUB_ID_PATTERN: "must be a hub id such as dany0407/eli5_category; addresses go into files",
    REPOSITORY_PATTERN: "must be owner/name",
    FIELD_PATH_PATTERN: "must be a dotted path such as answers.text",
    MOUNT_PATH_PATTERN: "must be an absolute path such as /data, without '.' or '..' or a final '/'",
    SECRET_KEY_PATTERN: "must be a key of a Secret: letters, digits, '-', '_' and '.'",
    VARIABLE_PATTERN: "must be a name such as MY_VARIABLE: letters, digits and '_'",
    IMAGE_PATTERN: "must be an image name such as registry.example.com/team/image:tag",
    FILE_URI_PATTERN: "must be s3://bucket/key or file:///path, with * and ? as wildcards",
}
"""What each pattern means to a person."""


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches, as in Go: unlike in Python, ``$`` does not match before a final newline."""
    return re.match(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern, text) is not None


def between(low: float, high: float, *, above: bool = False) -> Callable[[str | None], bool]:
    """A test for quoted decimals: ``low <= value <= high``, or ``low < value`` with ``above``; absent passes."""

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
    """A bound for texts together, in characters, as CEL (their sizes added up) and as Python (their sizes)."""
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


def amount(quantity: str) -> Exact:
    """A Kubernetes quantity as a number: CPUs, or bytes.

    Raises:
        ValueError: it is none of those that :data:`QUANTITY_PATTERN` describes.
    """
    if not matches(QUANTITY_PATTERN, quantity):
        raise ValueError(f'"{quantity}" {PATTERN_HINTS[QUANTITY_PATTERN]}')
    number = quantity.rstrip("mkMGTPEi")
    return Exact(number) * _MULTIPLES[quantity[len(number) :]]


def quantity_rule(field: str, attribute: str, least: str, most: str) -> Rule:
    """Bounds for a quantity, as CEL and as Python: 0 stands for "no limit" where Kubernetes reads it."""

    def holds(value: Any) -> bool:
        given = getattr(value, attribute)
        return given is None or not matches(QUANTITY_PATTERN, given) or amount(least) <= amount(given) <= amount(most)

    bounds = ((">=", least), ("<=", most))
    inside = " && ".join(f"quantity(self.{field}).compareTo(quantity('{bound}')) {sign} 0" for sign, bound in bounds)
    return Rule(
        cel=f"!has(self.{field}) || !isQuantity(self.{field}) || ({inside})",
        message=f"must lie between {least} and {most}; leave it out for the platform's default",
        holds=holds,
        field=field,
    )


def at_most_one(first: str, second: str, remedy: str) -> Rule:
    """Two fields that exclude each other."""
    return Rule(
        cel=f"!(has(self.{first}) && has(self.{second}))",
        message=f"{first} and {second} exclude each other; {remedy}",
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
    """A field that makes sense only under a condition."""
    return Rule(
        cel=f"!has(self.{field}) || ({condition_cel})",
        message=message,
        holds=lambda value: getattr(value, _snake(field)) is None or condition(value),
        field=field,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
