"""Finds every problem of a manifest at once, each with its field path and what to do.

The CRD is generated from the same types and rules (:mod:`lmft_api.generate.crd`): what passes here passes the API
server.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from lmft_api import API_VERSION, KIND
from lmft_api.manifest import hints
from lmft_api.schema.patterns import (
    DECIMAL_PATTERN,
    DNS_LABEL_PATTERN,
    DNS_SUBDOMAIN_PATTERN,
    LABEL_VALUE_PATTERN,
    PATTERN_HINTS,
    QUALIFIED_NAME_PATTERN,
    matches,
)
from lmft_api.schema.rules import RULES_KEY
from lmft_api.schema.structural import KEY_MESSAGE, MAX_KEY_LENGTH, normalised, schema_at, structural_schema, walk
from lmft_api.schema.types import LIST_KEYS, MAX_JSON_DEPTH, levels
from lmft_api.spec import LMFineTuneSpec
from lmft_api.text.wording import shorten
from lmft_api.wire.run_file import MUTABLE_FIELDS

_METADATA_FIELDS = (
    *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "managedFields"),
    *("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)

MAX_DEPTH = 64
"""Levels of nesting of a whole spec; far above any valid one, and below the recursion limit."""


@dataclass(frozen=True)
class Problem:
    """One problem: where, and what to do. An empty path means the document itself; the line is that of a file."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def document_problems(document: Any) -> list[Problem]:
    """All problems of one manifest document, in the order of their paths."""
    if not isinstance(document, dict):
        return [Problem("", "must be an object with apiVersion, kind, metadata and spec")]
    problems: list[Problem] = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != wanted:
            found = document.get(key)
            problems.append(Problem(key, f"must be {wanted}" + (f", not {shorten(str(found), 100)}" if found else "")))
    known = ("apiVersion", "kind", "metadata", "spec", "status")
    problems += [Problem(str(key), _unknown(str(key), known)) for key in document if key not in known]
    problems += _metadata_problems(document.get("metadata"))
    if document.get("spec") is None:
        problems.append(Problem("spec", "is required"))
    else:
        problems += spec_problems(document["spec"])
    return problems


def spec_problems(spec: Any) -> list[Problem]:
    """All problems of a spec, types and bounds as well as the rules across fields, in the order of their paths."""
    if (depth := levels(spec)) > MAX_DEPTH:
        return [Problem(_deepest(spec), f"nests {depth} levels deep, more than is read")]
    schema = structural_schema(LMFineTuneSpec)
    spec = normalised(schema, spec)
    problems: list[Problem] = []
    try:
        LMFineTuneSpec.parse(spec)
    except ValidationError as error:
        problems += [_worded(details) for details in error.errors()]
    except (TypeError, ValueError) as error:
        return [Problem("spec", f"cannot be written as JSON: {error}")]
    for part_schema, part, path in walk(schema, spec, "spec"):
        if isinstance(part, dict):
            problems += _broken_rules(part_schema, part, path)
        elif isinstance(part, list) and LIST_KEYS in part_schema:
            problems += _duplicates(part_schema[LIST_KEYS][0], part, path)
    # Keys of a map are checked by the type, which names the key, and by a rule, which does not.
    keys_named = {problem.path for problem in problems if problem.message.startswith(KEY_MESSAGE + ", not ")}
    unique = {problem: None for problem in problems if problem.message != KEY_MESSAGE or problem.path not in keys_named}
    return sorted(unique, key=lambda problem: problem.path)


def _deepest(spec: Any) -> str:
    """Path of the field that is nested too deep."""
    path = "spec"
    for name in ("model", "fromConfig"):
        spec = spec.get(name) if isinstance(spec, dict) else None
        if levels(spec) <= MAX_JSON_DEPTH:
            break
        path += f".{name}"
    return path


def parse_spec(spec: Any) -> LMFineTuneSpec:
    """A valid spec as a typed object; call :func:`spec_problems` first.

    Raises:
        pydantic.ValidationError: when it is not valid.
    """
    return LMFineTuneSpec.parse(normalised(structural_schema(LMFineTuneSpec), spec))


def parse_readable(spec: Any) -> LMFineTuneSpec:
    """The readable parts of a spec that has problems; a placeholder for a model or a data set that cannot be read.

    For a run in progress whose spec a newer version refuses: that need not end it, but its limits still apply.
    """
    problems = spec_problems(spec)
    whole = spec if isinstance(spec, dict) else {}
    named = {problem.path.removeprefix("spec").lstrip(".").split(".")[0].split("[")[0] for problem in problems}
    sound = {field: value for field, value in whole.items() if field not in named}
    settable = {field: value for field, value in sound.items() if field in MUTABLE_FIELDS}
    placeholders = {"model": {"name": "unknown"}, "dataset": {"name": "unknown"}}
    kept = next((part for part in (sound, settable) if not spec_problems(placeholders | part)), {})
    return parse_spec(placeholders | kept)


class _View:
    """Attribute access to raw data, so that rules can run on what cannot be parsed as a whole."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return _viewed(self._raw.get(to_camel(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __getitem__(self, key: str) -> Any:
        return _viewed(self._raw[key])


def _viewed(value: Any) -> Any:
    if isinstance(value, dict):
        return _View(value)
    return [_viewed(entry) for entry in value] if isinstance(value, list) else value


def _broken_rules(schema: dict[str, Any], raw: dict[str, Any], path: str) -> Iterator[Problem]:
    for rule in schema.get(RULES_KEY, ()):
        try:
            holds = rule.holds(_View(raw))
        except (TypeError, AttributeError, ValueError):
            # A field of the wrong type: already reported, and the rule does not apply to it.
            continue
        if not holds:
            yield Problem(f"{path}.{rule.field}" if rule.field else path, rule.message)


def _duplicates(key: str, entries: list[Any], path: str) -> Iterator[Problem]:
    seen = set()
    for index, entry in enumerate(entries):
        name = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(name, str) and name in seen:
            yield Problem(f"{path}[{index}]", f'{key} "{name}" is given twice; remove one')
        elif isinstance(name, str):
            seen.add(name)


def _worded(details: Any) -> Problem:
    """One of pydantic's errors as a message for people."""
    location, kind, value = list(details["loc"]), details["type"], details.get("input")
    if location[-1:] == ["[key]"]:
        return Problem(_path(location[:-2]), f"{KEY_MESSAGE}, not {_quoted(value)}")
    schema = structural_schema(LMFineTuneSpec)
    if kind == "extra_forbidden":
        siblings = schema_at(schema, location[:-1])["properties"]
        parent = ".".join(part for part in location[:-1] if isinstance(part, str))
        return Problem(_path(location), _unknown(str(location[-1]), siblings, parent, _every_field()))
    pattern = schema_at(schema, location).get("pattern")
    return Problem(_path(location), _message(kind, details.get("ctx", {}), value, details["msg"], pattern))


def _path(location: list[Any]) -> str:
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _message(kind: str, context: dict[str, Any], value: Any, fallback: str, pattern: str | None) -> str:
    plural = {"too_long": "at most", "too_short": "at least"}
    if kind == "missing":
        return "is required"
    if pattern == DECIMAL_PATTERN and isinstance(value, int | float) and not isinstance(value, bool):
        return 'must be quoted text such as "2e-5", not a number'
    if kind == "string_type":
        return f"must be text, not {_kind_of(value)}" + ("" if isinstance(value, dict | list) else "; put it in quotes")
    if kind == "string_pattern_mismatch":
        return PATTERN_HINTS.get(context["pattern"], f"must match {context['pattern']}") + f", not {_quoted(value)}"
    if kind == "enum":
        choices = str(context["expected"]).replace("'", "")
        meant = hints.for_value(str(value), choices.replace(" or ", ", ").split(", "))
        return f"must be one of {choices}, not {_quoted(value)}" + (f"; did you mean {meant}?" if meant else "")
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return f"must be a whole number, not {value if isinstance(value, float) else _kind_of(value)}"
    if kind == "bool_type":
        return f"must be true or false, not {_kind_of(value)}"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"least {context['ge']}" if "ge" in context else f"most {context['le']}"
        return f"must be at {bound}, not {value}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters long"
    if kind == "string_too_short":
        return "must not be empty"
    if kind in plural:
        count = context.get("max_length", context.get("min_length"))
        entries = "entry" if count == 1 else "entries"
        return f"must have {plural[kind]} {count} {entries}, not {context.get('actual_length')}"
    wanted = {"model_type": "an object", "dict_type": "an object", "list_type": "a list"}.get(kind)
    return f"must be {wanted}, not {_kind_of(value)}" if wanted else fallback.removeprefix("Value error, ")


def _metadata_problems(metadata: Any) -> Iterator[Problem]:
    if not isinstance(metadata, dict):
        yield Problem("metadata", "must be an object with a name")
        return
    for key in metadata:
        if key not in _METADATA_FIELDS:
            yield Problem(f"metadata.{key}", _unknown(str(key), _METADATA_FIELDS))
    if not metadata.get("name") and not metadata.get("generateName"):
        yield Problem("metadata.name", "is required")
    for key, pattern, limit in (("name", DNS_SUBDOMAIN_PATTERN, 253), ("namespace", DNS_LABEL_PATTERN, 63)):
        value = metadata.get(key)
        if value and (not isinstance(value, str) or len(value) > limit or not matches(pattern, value)):
            yield Problem(f"metadata.{key}", PATTERN_HINTS[pattern] + f", at most {limit} characters")
    for field in ("labels", "annotations"):
        entries = metadata.get(field) or {}
        if not isinstance(entries, dict):
            yield Problem(f"metadata.{field}", f"must be an object, not {_kind_of(entries)}")
            continue
        for key, value in entries.items():
            path = f"metadata.{field}"
            # The API server lower-cases annotation keys before it checks them, so their prefix may have capitals.
            name = str(key).lower() if field == "annotations" else str(key)
            if not matches(QUALIFIED_NAME_PATTERN, name) or len(name.rpartition("/")[0]) > MAX_KEY_LENGTH:
                yield Problem(path, f"every key {PATTERN_HINTS[QUALIFIED_NAME_PATTERN]}, not {_quoted(key)}")
            if value is not None and not isinstance(value, str):
                yield Problem(f"{path}.{key}", f"must be text, not {_kind_of(value)}; put it in quotes")
            elif field == "labels" and not (len(value or "") <= 63 and matches(LABEL_VALUE_PATTERN, value or "")):
                hint = f"{PATTERN_HINTS[LABEL_VALUE_PATTERN]}, at most 63 characters"
                yield Problem(path, f"{hint}, not {_quoted(value)}")


def _unknown(name: str, known: Iterable[str], parent: str = "", everywhere: Iterable[str] = ()) -> str:
    if why := hints.why_absent(name):
        return f"unknown field; {why}"
    meant = hints.for_field(name, known, parent, everywhere)
    return "unknown field" + (f"; did you mean {meant}?" if meant else "")


@cache
def _every_field() -> tuple[str, ...]:
    """Paths of all fields below ``spec``, those of a list's entries too."""

    def below(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, entry in schema.get("properties", {}).items():
            yield f"{path}{name}"
            yield from below(entry.get("items", entry), f"{path}{name}.")

    return tuple(below(structural_schema(LMFineTuneSpec), ""))


def _kind_of(value: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text if len(text) <= 60 else text[:59] + "…"}"'
