"""Every problem of a manifest at once, each with its field path and what to do.

The same types and rules make the CRD (:mod:`lmft_api.crd`), so what passes here passes the API server.
"""

import difflib
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from lmft_api import API_VERSION, KIND
from lmft_api.base import (
    DECIMAL_PATTERN,
    DNS_LABEL_PATTERN,
    DNS_SUBDOMAIN_PATTERN,
    LIST_KEYS,
    PATTERN_HINTS,
    ApiModel,
    matches,
)
from lmft_api.spec import LMFineTuneSpec


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, and what to do. An empty path means the document itself."""

    path: str
    message: str

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
            problems.append(Problem(key, f"must be {wanted}" + (f", not {found}" if found else "")))
    known = ("apiVersion", "kind", "metadata", "spec", "status")
    problems += [Problem(str(key), _unknown(str(key), known)) for key in document if key not in known]
    problems += _metadata_problems(document.get("metadata"))
    if document.get("spec") is None:
        problems.append(Problem("spec", "is required"))
    else:
        problems += spec_problems(document["spec"])
    return problems


def spec_problems(spec: Any) -> list[Problem]:
    """All problems of a spec: types and bounds first, then the rules across fields."""
    spec = prune_nulls(spec)
    problems: list[Problem] = []
    try:
        LMFineTuneSpec.model_validate_json(json.dumps(spec))
    except ValidationError as error:
        problems += [_worded(details) for details in error.errors()]
    except (TypeError, ValueError) as error:
        return [Problem("spec", f"cannot be written as JSON: {error}")]
    problems += _rule_problems(LMFineTuneSpec, spec, "spec")
    unique = {(problem.path, problem.message): problem for problem in problems}
    return sorted(unique.values(), key=lambda problem: problem.path)


def parse_spec(spec: Any) -> LMFineTuneSpec:
    """A valid spec as typed object; call :func:`spec_problems` first.

    Raises:
        pydantic.ValidationError: when it is not valid.
    """
    return LMFineTuneSpec.parse(prune_nulls(spec))


def prune_nulls(value: Any, path: tuple[str, ...] = ()) -> Any:
    """The value without null fields, as the API server prunes them; a model's own config is left alone."""
    if path[-1:] == ("fromConfig",):
        return value
    if isinstance(value, dict):
        return {key: prune_nulls(entry, (*path, str(key))) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [prune_nulls(entry, path) for entry in value]
    return value


class _View:
    """Raw data behind the attributes of a type, so that rules can run on what does not parse as a whole."""

    def __init__(self, model: type[ApiModel], raw: dict[str, Any]) -> None:
        self._model, self._raw = model, raw

    def __getattr__(self, name: str) -> Any:
        field = self._model.model_fields[name]
        value = self._raw.get(str(field.alias))
        if value is None:
            return field.default if not field.is_required() else None
        nested = _model_of(field.annotation)
        return _View(nested, value) if nested is not None and isinstance(value, dict) else _viewed(field, value)


def _viewed(field: Any, value: Any) -> Any:
    nested = _model_of_entries(field.annotation)
    if nested is not None and isinstance(value, list):
        return [_View(nested, entry) for entry in value if isinstance(entry, dict)]
    return value


def _rule_problems(model: type[ApiModel], raw: Any, path: str) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        return
    view = _View(model, raw)
    for rule in model.rules:
        try:
            holds = rule.holds(view)
        except (TypeError, AttributeError, ValueError):
            # A field of the wrong type: already reported, and the rule has nothing to say about it.
            continue
        if not holds:
            yield Problem(f"{path}.{rule.field}" if rule.field else path, rule.message)
    for name, field in model.model_fields.items():
        value = raw.get(str(field.alias or name))
        here = f"{path}.{field.alias or name}"
        nested, entries = _model_of(field.annotation), _model_of_entries(field.annotation)
        if nested is not None:
            yield from _rule_problems(nested, value, here)
        elif entries is not None and isinstance(value, list):
            for index, entry in enumerate(value):
                yield from _rule_problems(entries, entry, f"{here}[{index}]")
            yield from _duplicates(field, value, here)


def _duplicates(field: Any, value: list[Any], path: str) -> Iterator[Problem]:
    keys = _list_keys(field.annotation) or _list_keys(Annotated[Any, *field.metadata, field])
    if not keys:
        return
    seen: set[Any] = set()
    for index, entry in enumerate(value):
        key = entry.get(keys[0]) if isinstance(entry, dict) else None
        if isinstance(key, str) and key in seen:
            yield Problem(f"{path}[{index}].{keys[0]}", f'"{key}" stands twice; remove one')
        if isinstance(key, str):
            seen.add(key)


def _list_keys(annotation: Any) -> list[str]:
    if get_origin(annotation) is Annotated:
        for part in get_args(annotation)[1:]:
            extra = getattr(part, "json_schema_extra", None)
            if isinstance(extra, dict) and LIST_KEYS in extra:
                return list(extra[LIST_KEYS])
    return next((keys for part in get_args(annotation) if (keys := _list_keys(part))), [])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types within optional and annotated types."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation


def _model_of(annotation: Any) -> type[ApiModel] | None:
    return next((t for t in _alternatives(annotation) if isinstance(t, type) and issubclass(t, ApiModel)), None)


def _model_of_entries(annotation: Any) -> type[ApiModel] | None:
    for part in _alternatives(annotation):
        if get_origin(part) is list:
            return _model_of(get_args(part)[0])
    return None


def _worded(details: Any) -> Problem:
    """One of pydantic's errors in our words."""
    location = [part for part in details["loc"] if part != "[key]"]
    path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    kind, context, value = details["type"], details.get("ctx", {}), details.get("input")
    if kind == "extra_forbidden":
        model = _model_at(location[:-1])
        names = [str(field.alias) for field in model.model_fields.values()] if model else []
        return Problem(path, _unknown(str(location[-1]), names))
    return Problem(path, _message(kind, context, value, details["msg"], location))


def _message(kind: str, context: dict[str, Any], value: Any, fallback: str, location: list[Any]) -> str:
    plural = {"too_long": "at most", "too_short": "at least"}
    if kind == "missing":
        return "is required"
    if kind == "string_type":
        decimal = isinstance(value, int | float) and not isinstance(value, bool)
        if decimal and _pattern_at(location) == DECIMAL_PATTERN:
            return 'must be quoted text such as "2e-5", not a number'
        return f'must be text, not {_kind_of(value)}' + ("; put it in quotes" if decimal else "")
    if kind == "string_pattern_mismatch":
        return PATTERN_HINTS.get(context["pattern"], f"must match {context['pattern']}") + f", not {_quoted(value)}"
    if kind == "enum":
        choices = str(context["expected"]).replace("'", "")
        near = difflib.get_close_matches(str(value), choices.replace(" or ", ", ").split(", "), 1, 0.5)
        return f"must be one of {choices}, not {_quoted(value)}" + (f"; did you mean {near[0]}?" if near else "")
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return f"must be a whole number, not {_kind_of(value)}"
    if kind == "bool_type":
        return f"must be true or false, not {_kind_of(value)}"
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"must be at {'least' if 'ge' in context else 'most'} {context.get('ge', context.get('le'))}, not {value}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters long"
    if kind == "string_too_short":
        return "must not be empty"
    if kind in plural:
        bound = context.get("max_length", context.get("min_length"))
        return f"must have {plural[kind]} {bound} entries, not {context.get('actual_length')}"
    wanted = {"model_type": "an object", "dict_type": "an object", "list_type": "a list"}.get(kind)
    return f"must be {wanted}, not {_kind_of(value)}" if wanted else fallback


def _model_at(location: list[Any]) -> type[ApiModel] | None:
    model: type[ApiModel] | None = LMFineTuneSpec
    for part in location:
        if isinstance(part, int) or model is None:
            continue
        field = next((f for f in model.model_fields.values() if f.alias == part), None)
        model = None if field is None else _model_of(field.annotation) or _model_of_entries(field.annotation)
    return model


def _pattern_at(location: list[Any]) -> str | None:
    model = _model_at(location[:-1])
    field = next((f for f in model.model_fields.values() if f.alias == location[-1]), None) if model else None
    return _find_pattern(field.annotation) or _find_pattern(Annotated[Any, *field.metadata, None]) if field else None


def _find_pattern(annotation: Any) -> str | None:
    if get_origin(annotation) is Annotated:
        for part in get_args(annotation)[1:]:
            if isinstance(pattern := getattr(part, "pattern", None), str):
                return pattern
    return next((found for part in get_args(annotation) if (found := _find_pattern(part))), None)


def _metadata_problems(metadata: Any) -> list[Problem]:
    if not isinstance(metadata, dict):
        return [Problem("metadata", "must be an object with a name")]
    problems = []
    for key, pattern, limit in (("name", DNS_SUBDOMAIN_PATTERN, 253), ("namespace", DNS_LABEL_PATTERN, 63)):
        value = metadata.get(key)
        if value is None:
            if key == "name" and not metadata.get("generateName"):
                problems.append(Problem("metadata.name", "is required"))
        elif not isinstance(value, str) or len(value) > limit or not matches(pattern, value):
            problems.append(Problem(f"metadata.{key}", PATTERN_HINTS[pattern] + f", at most {limit} characters"))
    return problems


def _unknown(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name.lower(), {entry.lower(): entry for entry in known}, 1, 0.6)
    names = {entry.lower(): entry for entry in known}
    return "unknown field" + (f"; did you mean {names[near[0]]}?" if near else "")


def _kind_of(value: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _quoted(value: Any) -> str:
    text = value.value if isinstance(value, Enum) else str(value)
    return f'"{text if len(text) <= 60 else text[:59] + "…"}"'
