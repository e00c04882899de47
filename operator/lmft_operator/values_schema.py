"""The schema of the chart's values, generated from values.yaml: ``python -m lmft_operator.values_schema VALUES``.

A value that maps to one of the operator's settings has that setting's type. Any other has the type of its default,
narrowed by comments ``# @schema`` above it (before ``# --``, which begins its description):

    # @schema name                     one of the kinds below
    # @schema [name]                   a list of them
    # @schema {minimum: 1}             keywords of JSON Schema

Where the default is an empty string, an empty string means "not set" and is accepted. Unknown keys are refused.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, TypeAdapter

from lmft_api.schema.patterns import QUANTITY_PATTERN, SECRET_KEY_PATTERN, matches
from lmft_api.schema.rules import RULES_KEY
from lmft_api.schema.types import ApiModel, DnsLabel, DnsSubdomain
from lmft_operator.settings import OperatorSettings
from lmft_operator.settings.types import Annotations, HttpAddress, Labels, Port

Schema = dict[str, Any]
MARK = "# @schema "


class SecretName(ApiModel):
    """An entry of ``imagePullSecrets``."""

    name: DnsSubdomain = ""
    """Name of the Secret."""


_CIDR = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*/[0-9]{1,3})$"
KINDS: dict[str, Any] = {
    "name": DnsSubdomain,
    "label": DnsLabel,
    "labels": Labels,
    "annotations": Annotations,
    "address": HttpAddress,
    "port": Port,
    "object": dict[str, Any],
    "secretName": SecretName,
    "secretKey": Annotated[str, StringConstraints(pattern=SECRET_KEY_PATTERN, max_length=253)],
    "integerOrText": int | str,
    "duration": Annotated[str, Field(pattern=r"^([0-9]+(h|m|s|ms))+$")],
    "digest": Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")],
    "cidr": Annotated[str, Field(pattern=_CIDR)],
}
"""Kinds that a comment may name."""

MOVED = {
    "defaults.output.uri": "defaults.outputUri",
    "defaults.output.endpointURL": "defaults.endpointURL",
    "defaults.output.region": "defaults.region",
    "defaults.output.credentialsSecretName": "defaults.credentialsSecretName",
    "job.image.pullPolicy": "job.imagePullPolicy",
    "watchNamespaces": "watch.namespaces",
    "leaderElection": "leader",
}
"""Values whose setting has another path; their children move with them."""

OTHERS = {"job.image", "progress.tls"}
"""Values that share a name with a setting but mean something else."""

FOREIGN: Schema = {
    "global": {"type": "object"},
    "enabled": {
        "type": "boolean",
        "description": "Read by charts that have this one as a dependency with a condition.",
    },
}
"""Keys set by a chart that has this one as a dependency: its ``condition``, and the global values."""

QUANTITY: Schema = {
    "type": ["string", "integer", "null"],
    "pattern": rf"^({QUANTITY_PATTERN[1:-1]})?$",
    "not": {"type": "string", "pattern": "^[0.]+[a-zA-Z]*$"},
    "minimum": 1,
    "maximum": 2**53,
    "maxLength": 32,
}
"""A quantity above 0; the template converts a number to text, and leaves out an empty value."""

_EXISTS: Schema = {"properties": {"operator": {"const": "Exists"}}, "required": ["operator"]}
_NO_EXECUTE: Schema = {"properties": {"effect": {"const": "NoExecute"}}, "required": ["effect"]}
CONDITIONS: dict[str, list[Schema]] = {
    "Toleration": [
        {"if": _EXISTS, "then": {"not": {"required": ["value"]}}, "else": {"required": ["key"]}},
        {"if": {"required": ["tolerationSeconds"]}, "then": _NO_EXECUTE},
    ]
}
"""Rules of the settings' models that span fields, as JSON Schema."""


def values_schema(text: str) -> Schema:
    """The schema of a values file.

    Raises:
        ValueError: it is not a mapping, or a comment names no kind.
    """
    settings = OperatorSettings.model_json_schema(ref_template="#/definitions/{model}")
    known = _Settings(settings)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("the values are not a mapping")
    whole = _Values(text, known).of_mapping(root, "")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the lmfinetune chart",
        **whole,
        "properties": FOREIGN | whole["properties"],
        "definitions": known.definitions,
    }


class _Settings:
    """Types of the settings, by their dotted paths."""

    def __init__(self, schema: Schema) -> None:
        self._root, self._models = schema, schema["$defs"]
        self.definitions = {"PolicyRules": self.plain(self._models["PolicyRules"])}

    def at(self, path: str) -> Schema | None:
        """The type at a path; None where there is no setting, or settings only below it."""
        moved = next((old for old in MOVED if path == old or path.startswith(f"{old}.")), None)
        place = path if moved is None else MOVED[moved] + path.removeprefix(moved)
        schema = self._root
        for name in place.split("."):
            schema = self._resolved(schema).get("properties", {}).get(name)
            if schema is None:
                return None
        return None if "properties" in self._resolved(schema) else self.plain(schema)

    def plain(self, schema: Schema) -> Schema:
        """A type without what Helm cannot use; models are expanded, and null becomes one of the types."""
        if "anyOf" in schema:
            some = self.plain(_not_null(schema))
            return some if some == QUANTITY else _or_null(some)
        if schema.get("$ref") == "#/definitions/PolicyRules":
            return {"$ref": "#/definitions/PolicyRules"}
        schema = self._resolved(schema)
        if schema.get("pattern") == QUANTITY_PATTERN:
            return QUANTITY
        conditions = CONDITIONS.get(schema.get("title", ""))
        if conditions is None:
            return _tidy(schema, self.plain)
        return _tidy(schema, lambda field: self.plain(_not_null(field))) | {"allOf": conditions}

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        return schema if reference is None else self._models[reference.rpartition("/")[2]]


class _Values:
    """Reads a values file with its comments."""

    def __init__(self, text: str, settings: _Settings) -> None:
        self._lines, self._settings = text.splitlines(), settings

    def of_mapping(self, node: yaml.MappingNode, path: str) -> Schema:
        """The type of a mapping whose keys are all listed in values.yaml."""
        properties = {
            key.value: self._of(key, value, f"{path}.{key.value}" if path else key.value) for key, value in node.value
        }
        return {"type": "object", "additionalProperties": False, "properties": properties}

    def _of(self, key: yaml.ScalarNode, node: yaml.Node, path: str) -> Schema:
        comment = self._comment(key.start_mark.line)
        setting = None if path in OTHERS else self._settings.at(path)
        default = yaml.SafeLoader("").construct_object(node, deep=True)
        if isinstance(comment, str | list):
            schema = _kind(comment)
        elif setting is not None:
            schema = setting
        elif isinstance(node, yaml.MappingNode) and node.value:
            schema = self.of_mapping(node, path)
        else:
            schema = {"type": _TYPES[type(default)]}
        if isinstance(comment, dict):
            schema = schema | comment
        return _or_empty(schema, default) if isinstance(default, str) else schema

    def _comment(self, line: int) -> Any:
        """What the ``# @schema`` comments above a key say of its type; None without any."""
        said: list[str] = []
        while line > 0 and (above := self._lines[line - 1].strip()).startswith("#"):
            line -= 1
            if above.startswith(MARK):
                said.insert(0, above.removeprefix(MARK))
        return yaml.safe_load(" ".join(said)) if said else None


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def _kind(named: str | list[str]) -> Schema:
    if isinstance(named, list):
        return {"type": "array", "items": _kind(named[0])}
    if named not in KINDS:
        raise ValueError(f'"{named}" is not a kind; there are {", ".join(sorted(KINDS))}')
    schema = TypeAdapter(KINDS[named]).json_schema()
    if "anyOf" in schema:
        return {"type": [each["type"] for each in schema["anyOf"]]}
    return _tidy(schema, lambda inner: inner)


def _tidy(schema: Schema, inner: Any) -> Schema:
    """A type without titles, descriptions and defaults; ``inner`` is applied to the types within it."""
    kept = {name: value for name, value in schema.items() if name not in ("title", "description", "default", RULES_KEY)}
    if "patternProperties" in kept:  # a pattern alone would let other keys through
        ((pattern, value),) = kept.pop("patternProperties").items()
        kept["propertyNames"] = {"pattern": pattern} | kept.get("propertyNames", {})
        kept["additionalProperties"] = value
    if "properties" in kept:
        kept["properties"] = {name: _tidy(inner(field), inner) for name, field in kept["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(kept.get(name), dict):
            kept[name] = inner(kept[name])
    if kept.get("additionalProperties") is True:
        del kept["additionalProperties"]
    return kept


def _not_null(schema: Schema) -> Schema:
    kinds: list[Schema] = [each for each in schema.get("anyOf", [schema]) if each != {"type": "null"}]
    return kinds[0]


def _or_null(schema: Schema) -> Schema:
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"]} | values


def _or_empty(schema: Schema, default: str) -> Schema:
    """A string that may be empty in place of null, or because its default is empty."""
    nullable = isinstance(schema.get("type"), list) and set(schema["type"]) == {"string", "null"}
    if nullable:
        schema = {**schema, "type": "string"}
    if "pattern" in schema and (nullable or not default) and not matches(schema["pattern"], ""):
        schema = {**schema, "pattern": f"^({schema['pattern'].removeprefix('^').removesuffix('$')})?$"}
    return schema


if __name__ == "__main__":
    print(json.dumps(values_schema(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=2, ensure_ascii=False))
