"""What every type of the contract shares: naming, strictness, and the rules that a type alone cannot say."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, StringConstraints
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
        schema = handler.resolve_ref_schema(handler(core))
        schema[RULES_KEY] = [rule.validation() for rule in cls.rules]
        return handler(core)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """The object from plain JSON data, by JSON's rules: enums from text, no other conversions.

        Raises:
            pydantic.ValidationError: with every problem; :mod:`lmft_api.validation` words them for people.
        """
        return cls.model_validate_json(json.dumps(document))

    def to_json(self) -> dict[str, Any]:
        """The object as it stands in a manifest: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def list_map(key: str) -> dict[str, Any]:
    """Schema of a list whose entries are told apart by one field, so that server-side apply merges them."""
    return {LIST_TYPE: "map", LIST_KEYS: [key]}


DECIMAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUALIFIED_NAME_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
IMPORT_PATH_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
# A hub id, or a folder or object that we can read; no other schemes, no blanks.
SOURCE_PATTERN = r"^((s3|file)://[^\s]+|[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?)$"
STORAGE_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?|file:///[^\s]*)$"
FILE_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+|file://[^\s]+)$"

Text = Annotated[str, StringConstraints(max_length=253, min_length=1)]
Decimal = Annotated[str, StringConstraints(pattern=DECIMAL_PATTERN, max_length=24)]
DnsLabel = Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, max_length=63)]
DnsSubdomain = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=32)]
QualifiedName = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME_PATTERN, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
ImportPath = Annotated[str, StringConstraints(pattern=IMPORT_PATH_PATTERN, max_length=253)]
Source = Annotated[str, StringConstraints(pattern=SOURCE_PATTERN, max_length=1024)]
StorageUri = Annotated[str, StringConstraints(pattern=STORAGE_URI_PATTERN, max_length=1024)]
FileUri = Annotated[str, StringConstraints(pattern=FILE_URI_PATTERN, max_length=1024)]

PATTERN_HINTS: dict[str, str] = {
    DECIMAL_PATTERN: 'must be quoted decimal text such as "2e-5" or "0.01"',
    DNS_LABEL_PATTERN: "must be a DNS label: lower-case letters, digits and '-'",
    DNS_SUBDOMAIN_PATTERN: "must be a Kubernetes name: lower-case letters, digits, '-' and '.'",
    QUANTITY_PATTERN: 'must be a Kubernetes quantity such as "4", "500m" or "16Gi"',
    QUALIFIED_NAME_PATTERN: "must be a Kubernetes qualified name such as example.com/team",
    LABEL_VALUE_PATTERN: "must be a Kubernetes label value: letters, digits, '-', '_' and '.'",
    IMPORT_PATH_PATTERN: "must be a Python import path such as package.module.ClassName",
    SOURCE_PATTERN: "must be a hub id such as distilbert/distilgpt2, or an s3:// or file:// address",
    STORAGE_URI_PATTERN: "must be s3://bucket/prefix or file:///absolute/folder",
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
