"""The CustomResourceDefinition, written from the types: ``python -m lmft_api.crd``."""

import sys
from typing import Any

import yaml

from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_api.base import LIST_TYPE, QUALIFIED_NAME_PATTERN, RULES_KEY
from lmft_api.run import MUTABLE_FIELDS
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import LMFineTuneStatus

PRINTER_COLUMNS = (
    ("Model", "string", ".status.model", 0, "What is trained"),
    ("Progress", "string", ".status.progress.display", 0, "How far it is"),
    ("ETA", "string", ".status.progress.eta", 0, "Time left"),
    ("Perplexity", "string", ".status.results.perplexity", 0, "Held-out perplexity at the newest evaluation"),
    ("Succeeded", "string", ".status.conditions[?(@.type=='Succeeded')].status", 0, "Outcome"),
    ("Reason", "string", ".status.conditions[?(@.type=='Succeeded')].reason", 0, "Why"),
    ("Baseline", "string", ".status.results.baselinePerplexity", 1, "Held-out perplexity before training"),
    ("Loss", "string", ".status.progress.loss", 1, "Training loss"),
    ("Step", "integer", ".status.progress.step", 1, "Optimiser steps done"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created"),
)


def crd() -> dict[str, Any]:
    """The CRD as plain data."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": text}
        for name, kind, path, priority, text in PRINTER_COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["lmft"],
                "categories": ["all", "ml"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    spec, status = _schema(LMFineTuneSpec), _schema(LMFineTuneStatus)
    return {
        "type": "object",
        "description": "A fine-tuning run: model, data and settings in; a model, figures, samples and a report out.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        RULES_KEY: [_immutable(name) for name in spec["properties"] if name not in MUTABLE_FIELDS],
    }


def _immutable(field: str) -> dict[str, str]:
    started = "has(oldSelf.status) && has(oldSelf.status.attempts) && size(oldSelf.status.attempts) > 0"
    both = f"has(self.spec.{field}) && has(oldSelf.spec.{field})"
    neither = f"!has(self.spec.{field}) && !has(oldSelf.spec.{field})"
    return {
        "rule": f"!({started}) || ({neither}) || ({both} && self.spec.{field} == oldSelf.spec.{field})",
        "message": f"spec.{field} cannot change once an attempt has started; make a new LMFineTune, whose "
        "spec.resumeFrom may name this one",
        "fieldPath": f".spec.{field}",
    }


def _schema(model: type[LMFineTuneSpec] | type[LMFineTuneStatus]) -> dict[str, Any]:
    whole = model.model_json_schema(by_alias=True)
    result: dict[str, Any] = _structural(whole, whole.get("$defs", {}))
    return result


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's JSON schema as a structural one: references put in, null alternatives and titles taken out."""
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
    if "properties" in schema:
        schema["properties"] = {
            name: _structural(entry, definitions) for name, entry in schema["properties"].items()
        }
    if schema.get("type") == "array":
        schema["items"] = _structural(schema["items"], definitions)
        schema.setdefault(LIST_TYPE, "atomic")
    if schema.get("type") == "object" and "properties" not in schema:
        schema = _map(schema, definitions)
    if schema.get("type") == "integer":
        schema["format"] = "int64"
    if not schema.get(RULES_KEY, True):
        del schema[RULES_KEY]
    return schema


def _map(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A map: a structural schema cannot constrain its keys, so a rule does."""
    keys = schema.pop("propertyNames", {})
    by_pattern = schema.pop("patternProperties", {})
    values = next(iter(by_pattern.values()), schema.pop("additionalProperties", True))
    pattern = next(iter(by_pattern), keys.get("pattern"))
    if values is True:
        return {**schema, "x-kubernetes-preserve-unknown-fields": True}
    schema["additionalProperties"] = _structural(values, definitions)
    if pattern == QUALIFIED_NAME_PATTERN:
        schema[RULES_KEY] = [
            {
                "rule": "self.all(key, !format.qualifiedName().validate(key).hasValue())",
                "message": "every key must be a Kubernetes qualified name such as example.com/team",
            }
        ]
    return schema


if __name__ == "__main__":
    sys.stdout.write("# Written by `python -m lmft_api.crd`; change the types, not this file.\n")
    yaml.safe_dump(crd(), sys.stdout, sort_keys=False, width=120)
