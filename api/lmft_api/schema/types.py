"""What all types of the API share: naming, strictness, and rules that a type alone cannot express."""

import json
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from lmft_api.schema.patterns import (
    DECIMAL_PATTERN,
    DNS_LABEL_PATTERN,
    DNS_SUBDOMAIN_PATTERN,
    FIELD_PATH_PATTERN,
    FILE_URI_PATTERN,
    HUB_ID_PATTERN,
    IMPORT_PATH_PATTERN,
    LABEL_VALUE_PATTERN,
    QUALIFIED_NAME_PATTERN,
    QUANTITY_PATTERN,
    SOURCE_PATTERN,
    STORAGE_URI_PATTERN,
    TRACKER_URI_PATTERN,
)
from lmft_api.schema.rules import RULES_KEY, Rule

LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"


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
        """The object from plain JSON data, converted as strictly as JSON: enums from text, nothing else.

        Raises:
            pydantic.ValidationError: with every problem; :mod:`lmft_api.manifest.validation` words them for people.
        """
        return cls.model_validate_json(json.dumps(document, allow_nan=False), by_alias=True, by_name=False)

    def to_json(self) -> dict[str, Any]:
        """The object as written in a manifest: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def list_map(key: str) -> dict[str, Any]:
    """Schema of a list whose entries are identified by one field, so that server-side apply merges them."""
    return {LIST_TYPE: "map", LIST_KEYS: [key]}


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
TrackerUri = Annotated[str, StringConstraints(pattern=TRACKER_URI_PATTERN, max_length=1024)]
MAX_JSON_BYTES, MAX_JSON_DEPTH = 16 * 1024, 8


def levels(value: Any) -> int:
    """Levels of nesting of a JSON value: 0 for a scalar, 1 for a list of scalars; does not recurse."""
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
        raise ValueError(
            f"is {size:,} bytes as JSON, at most {MAX_JSON_BYTES:,} are read; "
            "the vocabulary belongs to spec.model.tokenizer"
        )
    return value


SmallJson = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_small_json)]
"""An object with arbitrary content of limited size: the API server itself limits only its number of keys."""
