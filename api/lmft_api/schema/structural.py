"""The types as structural schemas: plain nested data without references, unions or titles.

The CRD is generated from it (:mod:`lmft_api.generate.crd`), validation walks along it
(:mod:`lmft_api.manifest.validation`), and the reference is generated from it (:mod:`lmft_api.generate.reference`).
Rules appear in it as :class:`lmft_api.schema.rules.Rule` objects.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from lmft_api.schema.patterns import QUALIFIED_NAME_PATTERN, matches
from lmft_api.schema.rules import RULES_KEY, Rule
from lmft_api.schema.types import LIST_TYPE, ApiModel

PRESERVE = "x-kubernetes-preserve-unknown-fields"
MAX_KEY_LENGTH = 253
KEY_MESSAGE = f"every key must be a Kubernetes qualified name such as example.com/team, at most {MAX_KEY_LENGTH} long"

_QUALIFIED_KEYS = Rule(
    f"self.all(key, size(key) <= {MAX_KEY_LENGTH} && key.matches(r'{QUALIFIED_NAME_PATTERN}'))",
    KEY_MESSAGE,
    lambda keys: all(len(key) <= MAX_KEY_LENGTH and matches(QUALIFIED_NAME_PATTERN, key) for key in keys),
)


@cache
def structural_schema(model: type[ApiModel]) -> dict[str, Any]:
    """The structural schema of a type. Do not modify the result: it is shared.

    Raises:
        ValueError: a type cannot be expressed as a structural schema.
    """
    whole = model.model_json_schema(by_alias=True)
    return _structural(whole, whole.get("$defs", {}))


def walk(schema: dict[str, Any], value: Any, path: str) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """Every part of a value that the schema covers, as (its schema, the part, its path), parents first."""
    yield schema, value, path
    if isinstance(value, dict):
        for name, entry in schema.get("properties", {}).items():
            if name in value:
                yield from walk(entry, value[name], f"{path}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for index, entry in enumerate(value):
            yield from walk(schema["items"], entry, f"{path}[{index}]")


def normalised(schema: dict[str, Any], value: Any) -> Any:
    """The value as the API server sees it: nulls of known fields removed, and the schema's defaults filled in."""
    if isinstance(value, list):
        return [normalised(schema.get("items", {}), entry) for entry in value]
    if not isinstance(value, dict) or PRESERVE in schema:
        return value
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    kept = {
        name: normalised(known.get(name, others or {}), entry)
        for name, entry in value.items()
        if entry is not None or (name not in known and others is None)
    }
    defaults = {name: entry["default"] for name, entry in known.items() if "default" in entry and name not in kept}
    return kept | defaults


def schema_at(schema: dict[str, Any], location: list[Any]) -> dict[str, Any]:
    """The schema at a location; empty where it defines nothing."""
    for part in location:
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        schema = inner or schema.get("additionalProperties") or {}
    return schema


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's JSON schema as a structural one: references expanded, null alternatives and titles removed."""
    schema = dict(schema)
    if "$ref" in schema:
        target = definitions[schema.pop("$ref").rsplit("/", 1)[-1]]
        return _structural({**target, **schema}, definitions)
    if "anyOf" in schema:
        options = [option for option in schema.pop("anyOf") if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a structural schema has no unions: {options}")
        return _structural({**options[0], **schema}, definitions)
    for key in ("title", "$defs"):
        schema.pop(key, None)
    if schema.get("default") is None:
        schema.pop("default", None)
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    if not schema.get(RULES_KEY, True):
        del schema[RULES_KEY]
    kind = schema.get("type")
    if "properties" in schema:
        schema["properties"] = {name: _structural(entry, definitions) for name, entry in schema["properties"].items()}
    elif kind == "object":
        schema = _map(schema, definitions)
    if kind == "array":
        schema["items"] = _structural(schema["items"], definitions)
        schema.setdefault(LIST_TYPE, "atomic")
    if kind == "integer":
        schema["format"] = "int64"
    return schema


def _map(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A map: a structural schema cannot constrain keys, so a rule does."""
    keys = schema.pop("propertyNames", {})
    by_pattern = schema.pop("patternProperties", {})
    values = next(iter(by_pattern.values()), schema.pop("additionalProperties", True))
    if values is True:
        return {**schema, PRESERVE: True}
    schema["additionalProperties"] = _structural(values, definitions)
    if next(iter(by_pattern), keys.get("pattern")) == QUALIFIED_NAME_PATTERN:
        schema[RULES_KEY] = [_QUALIFIED_KEYS]
    return schema
