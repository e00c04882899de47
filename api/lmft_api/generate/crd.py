"""The CustomResourceDefinition, generated from the types: ``python -m lmft_api.crd``."""

import sys
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_api.figures import PERPLEXITY, headlines
from lmft_api.schema.rules import RULES_KEY, Rule
from lmft_api.schema.structural import structural_schema
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import LMFineTuneStatus
from lmft_api.wire.run_file import MUTABLE_FIELDS, MUTABLE_RESOURCES, Stage

_NEWEST = "at the newest evaluation"
_RESULT = " or ".join(kind.word for kind in headlines())


def _field(name: str) -> str:
    return f".status.results.{to_camel(name)}"


PRINTER_COLUMNS = (
    ("Model", "string", ".status.model", 0, "What is trained"),
    ("Progress", "string", ".status.progress.display", 0, "How far it is"),
    ("ETA", "string", ".status.progress.eta", 0, "Time left"),
    ("Result", "string", _field("display"), 0, f"Held-out {_RESULT} {_NEWEST}"),
    ("Succeeded", "string", ".status.conditions[?(@.type=='Succeeded')].status", 0, "Outcome"),
    ("Reason", "string", ".status.conditions[?(@.type=='Succeeded')].reason", 0, "Why"),
    (PERPLEXITY.title, "string", _field(PERPLEXITY.name), 1, f"Held-out {PERPLEXITY.word} {_NEWEST}"),
    ("Baseline", "string", _field(PERPLEXITY.baseline), 1, f"Held-out {PERPLEXITY.word} before training"),
    ("Loss", "string", ".status.progress.loss", 1, "Training loss"),
    ("Step", "integer", ".status.progress.step", 1, "Optimiser steps done"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created"),
)


def crd() -> dict[str, Any]:
    """The CRD as plain data."""
    # The API server drops a priority of 0, so tools that compare would set it again and again.
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "description": text}
        | ({"priority": priority} if priority else {})
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
    spec, status = _printed(structural_schema(LMFineTuneSpec)), _printed(structural_schema(LMFineTuneStatus))
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
        RULES_KEY: [*_fixed_once_training(spec["properties"])],
    }


_STARTED = (
    "has(oldSelf.status) && has(oldSelf.status.attempts) && "
    f"oldSelf.status.attempts.exists(a, !has(a.stage) || a.stage != '{Stage.PREPARE.value}')"
)


def _fixed_once_training(fields: dict[str, Any]) -> Iterator[dict[str, str]]:
    """A rule for each field that may not change any more; of ``resources``, for each of its own."""
    for name in fields:
        if name == "resources":
            yield from (
                _immutable(f"resources.{part}")
                for part in fields["resources"]["properties"]
                if part not in MUTABLE_RESOURCES
            )
            yield _still_with_gpus()
        elif name not in MUTABLE_FIELDS:
            yield _immutable(name)


def _still_with_gpus() -> dict[str, str]:
    """Figures of a GPU and of a CPU differ: a run stays with one of them."""
    field = "spec.resources.gpusPerNode"
    before, after = (f"(has({side}.spec.resources) && has({side}.{field}) && {side}.{field} > 0)" for side in _SIDES)
    return {
        "rule": f"!({_STARTED}) || {before} == {after}",
        "message": f"{field} cannot change between 0 and more once training has started; make a new LMFineTune, whose "
        "spec.resumeFrom may name this one",
        "fieldPath": f".{field}",
    }


_SIDES = ("oldSelf", "self")


def _immutable(field: str) -> dict[str, str]:
    parent = field.rpartition(".")[0]
    before, after = (
        f"has({side}.spec.{field})" if not parent else f"(has({side}.spec.{parent}) && has({side}.spec.{field}))"
        for side in _SIDES
    )
    same = f"self.spec.{field} == oldSelf.spec.{field}"
    return {
        "rule": f"!({_STARTED}) || (!{after} && !{before}) || ({after} && {before} && {same})",
        "message": f"spec.{field} cannot change once training has started; make a new LMFineTune, whose "
        "spec.resumeFrom may name this one",
        "fieldPath": f".spec.{field}",
    }


def _printed(schema: Any) -> Any:
    """The schema as plain data, rules in the API server's form; no shared objects, so that YAML needs no anchors."""
    if isinstance(schema, Rule):
        return schema.validation()
    if isinstance(schema, dict):
        return {key: _printed(value) for key, value in schema.items()}
    return [_printed(value) for value in schema] if isinstance(schema, list) else schema


def main() -> None:
    """Print the definition as YAML."""
    sys.stdout.write("# Written by `python -m lmft_api.crd`; change the types, not this file.\n")
    yaml.safe_dump(crd(), sys.stdout, sort_keys=False, width=120)
