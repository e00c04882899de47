"""Generates pages of docs/ from the types: ``python -m lmft_api.reference FOLDER`` writes them.

``reference.md`` lists every field of the manifest and of the status, ``troubleshooting.md`` every reason.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmft_api import API_VERSION, KIND
from lmft_api.reasons import REASONS, ExitCode, Reason, reason_of_exit
from lmft_api.schema.patterns import PATTERN_HINTS
from lmft_api.schema.rules import RULES_KEY
from lmft_api.schema.structural import PRESERVE, structural_schema
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import LMFineTuneStatus
from lmft_api.text.wording import in_words
from lmft_api.wire.run_file import MUTABLE_FIELDS

_WRITTEN = "<!-- Written by `make generate` from the types in api/lmft_api; change those, not this page. -->\n"


def pages() -> dict[str, str]:
    """File name to content."""
    return {"reference.md": _reference(), "troubleshooting.md": _troubleshooting()}


def documented_default(description: str) -> tuple[str, str | None]:
    """A description without its last sentence ``Default: …``, and that default, if there is one."""
    match = re.search(r"\s*Default: (.+)\.$", description, re.DOTALL)
    return (description[: match.start()], match[1]) if match else (description, None)


def _reference() -> str:
    parts = [
        _WRITTEN,
        "# Manifest reference\n",
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`. Text in quotes means that a number must be quoted. The same "
        "text is on a cluster: `kubectl explain lmft.spec.training`. Until an attempt trains everything may change; "
        f"after that only {in_words([f'`{name}`' for name in MUTABLE_FIELDS])} of the spec, and metadata.\n",
        *_object(structural_schema(LMFineTuneSpec), "spec"),
        *_object(structural_schema(LMFineTuneStatus), "status"),
    ]
    return "\n".join(parts)


def _object(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", ())
    yield f"## {path}\n"
    yield _line(schema["description"]) + "\n"
    yield "| Field | Type | Default | Meaning |\n|---|---|---|---|"
    inner: list[tuple[dict[str, Any], str]] = []
    for name, field in schema["properties"].items():
        text, default = documented_default(_line(field["description"]))
        shown = default or ("required" if name in required else "")
        if "default" in field:
            shown = f"`{field['default']}`" if field["type"] == "string" else str(field["default"]).lower()
        yield f"| `{name}` | {_cell(_kind(field, f'{path}.{name}'))} | {_cell(shown)} | {_cell(text)} |"
        entry = field.get("items", field)
        if "properties" in entry:
            inner.append((entry, f"{path}.{name}" + ("[]" if "items" in field else "")))
    rules = [f"- {f'`{rule.field}`: ' if rule.field else ''}{rule.message}" for rule in schema.get(RULES_KEY, ())]
    yield "\n" + "\n".join([*rules, ""] if rules else [])
    for entry, inner_path in inner:
        yield from _object(entry, inner_path)


def _kind(schema: dict[str, Any], path: str) -> str:
    """The type of a field in words."""
    if "items" in schema:
        link = _kind(schema["items"], f"{path}[]")
        bound = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {link}{bound}"
    if "properties" in schema:
        return f"[object](#{re.sub(r'[^a-z]', '', path.lower())})"
    if "additionalProperties" in schema:
        return f"map to {_kind(schema['additionalProperties'], path)}, at most {schema['maxProperties']}"
    if PRESERVE in schema:
        return "object"
    if "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "integer" and {"minimum", "maximum"} <= schema.keys():
        return f"integer, {schema['minimum']} to {schema['maximum']}"
    if "pattern" in schema:
        return PATTERN_HINTS[schema["pattern"]].removeprefix("must be ")
    if schema["type"] == "string":
        return "time" if "format" in schema else f"text, at most {schema['maxLength']} characters"
    return str(schema["type"])


def _troubleshooting() -> str:
    parts = [
        _WRITTEN,
        "# Troubleshooting by reason\n",
        "`kubectl get lmft` shows the reason of the condition `Succeeded`, `kubectl describe lmft NAME` the message "
        "that goes with it and what happened before. Each reason means one thing:\n",
    ]
    for title, reasons in _reasons_by_outcome().items():
        parts.append(f"## {title}\n")
        parts += [f"### {r.value}\n\n{REASONS[r].cause}\n\n**What to do:** {REASONS[r].remedy}\n" for r in reasons]
    parts.append(
        "## Exit codes\n\nThe job reports its reason itself; otherwise its exit code gives the reason.\n\n"
        "| Code | Assumed reason |\n|---|---|"
    )
    parts += [f"| {code.value} | {_linked(reason_of_exit(code))} |" for code in ExitCode]
    parts.append(f"| any, killed because memory ran out (OOMKilled) | {_linked(Reason.OUT_OF_MEMORY)} |")
    parts.append(f"| any other | {_linked(reason_of_exit(1))} |\n")
    return "\n".join(parts)


def _reasons_by_outcome() -> dict[str, list[Reason]]:
    """Heading to reasons; the enumeration lists first those of an unfinished run, then success, then failures."""
    reasons = list(Reason)
    done = reasons.index(Reason.COMPLETED)
    return {
        "While the run is not finished (Succeeded is Unknown)": reasons[:done],
        "When it is done (True)": [Reason.COMPLETED],
        "When it has failed (False)": reasons[done + 1 :],
    }


def _linked(reason: Reason) -> str:
    return f"[{reason.value}](#{reason.value.lower()})"


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Text escaped for a table cell: a vertical bar would end the cell, and a tag would not be shown."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def main(folder: Path) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
