"""The manifest's JSON Schema, by which editors complete and check fields while they are typed: ``lmft schema``.

It is the structural schema of the CRD in the words of JSON Schema 2020-12. Rules over several fields (CEL) have no
counterpart there; ``lmft validate`` and the API server check these.
"""

from typing import Any

from lmft_api import GROUP, KIND, VERSION
from lmft_api.schema.structural import PRESERVE, structural_schema
from lmft_api.spec import LMFineTuneSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INT_OR_STRING = "x-kubernetes-int-or-string"


def editor_schema() -> dict[str, Any]:
    """The schema of one LMFineTune as plain data."""
    return {
        "$schema": DIALECT,
        "title": KIND,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": f"{GROUP}/{VERSION}"},
            "kind": {"const": KIND},
            "metadata": {
                "type": "object",
                "anyOf": [{"required": ["name"]}, {"required": ["generateName"]}],
                "properties": {
                    "name": {"type": "string", "description": "Name of the run, and of its folder in storage."},
                    "generateName": {"type": "string"},
                    "namespace": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            "spec": _translated(structural_schema(LMFineTuneSpec)),
            "status": {"type": "object"},
        },
    }


def _translated(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema: unknown fields are refused, Kubernetes' own keywords are removed."""
    kept = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    if schema.get(INT_OR_STRING):
        return {**kept, "type": ["integer", "string"]}
    if "properties" in schema:
        kept["properties"] = {name: _translated(entry) for name, entry in schema["properties"].items()}
        if PRESERVE not in schema:
            kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _translated(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = _translated(schema["items"])
    return kept
