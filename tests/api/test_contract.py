"""What the types promise: a structural schema, generated files that are fresh, a closed list of reasons."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmft_api.generate.crd import crd
from lmft_api.generate.reference import documented_default, pages
from lmft_api.manifest.validation import parse_readable, spec_problems
from lmft_api.reasons import FINAL_EXIT_CODES, REASONS, ExitCode, Reason, reason_of_exit
from lmft_api.schema.patterns import PATTERN_HINTS
from lmft_api.schema.rules import RULES_KEY, Rule
from lmft_api.schema.structural import PRESERVE, structural_schema
from lmft_api.schema.types import MAX_JSON_BYTES
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import resolve
from lmft_api.status import LMFineTuneStatus

ROOT = Path(__file__).parents[2]
STALE = "is stale; run: make generate"
SPEC = structural_schema(LMFineTuneSpec)


def parts(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, entry in schema.get("properties", {}).items():
        yield from parts(entry, f"{path}.{name}")
    for key, end in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from parts(schema[key], path + end)


PARTS = [*parts(SPEC, "spec"), *parts(structural_schema(LMFineTuneStatus), "status")]


def test_the_charts_definition_is_the_one_of_the_types():
    printed = subprocess.run([sys.executable, "-m", "lmft_api.crd"], capture_output=True, text=True, check=True).stdout

    assert (ROOT / "charts/lmfinetune/files/crd.yaml").read_text() == printed, f"charts/…/crd.yaml {STALE}"
    assert yaml.safe_load(printed) == crd()


@pytest.mark.parametrize("name", ["reference.md", "troubleshooting.md"])
def test_the_pages_written_from_the_types_are_fresh(name: str):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == pages()[name], f"docs/{name} {STALE}"


@pytest.mark.parametrize(("path", "schema"), PARTS, ids=[path for path, _ in PARTS])
def test_the_schema_is_structural_bounded_and_described(path: str, schema: dict[str, Any]):
    kind = schema["type"]

    assert kind in ("object", "array", "string", "integer", "boolean"), "no floats"
    assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title"} & schema.keys()
    assert path.endswith(("[]", "{}")) or schema["description"].strip().endswith((".", ":"))
    assert kind != "string" or "enum" in schema or "maxLength" in schema
    assert kind != "array" or ("maxItems" in schema and schema["x-kubernetes-list-type"] in ("atomic", "map"))
    assert "additionalProperties" not in schema or "maxProperties" in schema
    assert kind != "integer" or path.startswith("status") or {"minimum", "maximum"} <= schema.keys()
    assert kind != "object" or {"properties", "additionalProperties", PRESERVE} & schema.keys()
    assert "pattern" not in schema or schema["pattern"] in PATTERN_HINTS, "a pattern needs words for people"


def test_every_rule_of_the_types_reaches_the_definition():
    ours = [rule for _, schema in PARTS for rule in schema.get("x-kubernetes-validations", ())]
    text = yaml.safe_dump(crd(), width=10_000)

    assert len(ours) > 25
    assert all(isinstance(rule, Rule) and rule.holds is not None for rule in ours)
    root = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    assert text.count("rule:") == len(ours) + len(root)


# A new definition is compiled with what the release before the server's offers: for 1.30 that is 1.29. Among what came
# later are format and its qualifiedName(), ip, cidr and semver.
OLD_FUNCTIONS = {"all", "double", "exists", "exists_one", "has", "matches", "size", "startsWith"}
OLD_FUNCTIONS |= {"compareTo", "isQuantity", "quantity"}  # of 1.28
OLD_FUNCTIONS |= {"map", "sum"}  # of 1.23


def test_the_rules_call_only_what_the_oldest_supported_api_server_knows():
    schemas = [*PARTS, ("", crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"])]
    rules = [rule for _, schema in schemas for rule in schema.get("x-kubernetes-validations", ())]
    texts = [rule.cel if isinstance(rule, Rule) else rule["rule"] for rule in rules]

    called = {name for text in texts for name in re.findall(r"(\w+)\(", re.sub(r"'[^']*'", "''", text))}

    assert called == OLD_FUNCTIONS


def test_epochs_and_everything_that_excludes_something_has_no_default_in_the_definition():
    with_default = {path for path, schema in parts(SPEC, "spec") if "default" in schema}

    assert with_default == {"spec.task", "spec.hubTokenSecretRef.key", "spec.output.pushToHub.private"}


def test_the_defaults_that_the_descriptions_state_are_the_ones_that_runs_get():
    plain = {"model": {"name": "a"}, "dataset": {"name": "b"}}
    tasks = ("CausalLM", "MaskedLM", "SequenceClassification")
    flat = {task: resolve(LMFineTuneSpec.parse(plain | {"task": task})).flat() for task in tasks}
    checked = 0
    for path, schema in parts(SPEC, "spec"):
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in path.removeprefix("spec."))
        by_task = {task: values[name] for task, values in flat.items() if name in values}
        _, stated = documented_default(schema.get("description", ""))
        if not by_task or not isinstance(stated, str):
            continue
        shown = {task: _as_written(value, schema) for task, value in by_task.items()}
        common = next(iter(shown.values()))
        others = "".join(f" ({task}: {value})" for task, value in shown.items() if value != common)
        assert stated == common + others, path
        checked += 1
    assert checked >= 20


def _as_written(value: Any, schema: dict[str, Any]) -> str:
    if isinstance(value, float):
        text = "1.0" if value == 1.0 else f"{value:g}".replace("e-0", "e-")
        return f'"{text}"'
    return str(value).lower() if schema["type"] == "boolean" else str(getattr(value, "value", value))


def test_every_reason_has_a_cause_and_a_remedy():
    assert set(REASONS) == set(Reason)
    for reason, info in REASONS.items():
        assert info.cause.endswith("."), reason
        assert info.remedy.endswith("."), reason


def test_remedies_name_fields_that_exist():
    known = {path.replace("[]", "") for path, _ in PARTS}
    for info in REASONS.values():
        words = f"{info.cause} {info.remedy}".replace(",", " ").replace(";", " ").split()
        named = [word.rstrip(".") for word in words if word.startswith("spec.")]
        assert set(named) <= known


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, Reason.COMPLETED),
        (2, Reason.INVALID_SPEC),
        (3, Reason.STORAGE_ACCESS_DENIED),
        (4, Reason.ACCELERATOR_OUT_OF_MEMORY),
        (5, Reason.DIVERGED),
        (6, Reason.STORAGE_UNAVAILABLE),
        (7, Reason.HUNG),
        (8, Reason.PEERS_MISSING),
        (75, Reason.INTERRUPTED),
        (137, Reason.INTERNAL_ERROR),
        (1, Reason.INTERNAL_ERROR),
        (143, Reason.INTERNAL_ERROR),
        (-11, Reason.INTERNAL_ERROR),
    ],
)
def test_every_exit_code_has_a_reason(code: int, reason: Reason):
    assert reason_of_exit(code) == reason


def test_only_what_cannot_pass_is_final():
    assert set(ExitCode) - FINAL_EXIT_CODES == {0, 6, 7, 8, 75}


@pytest.mark.parametrize(
    "module",
    ["lmft_api.manifest.validation", "lmft_api.manifest.reader", "lmft_api.generate.crd", "lmft_api.wire.result"],
)
def test_the_contract_imports_nothing_heavy(module: str):
    heavy = ("torch", "transformers", "datasets", "numpy", "kubernetes", "kopf", "boto3", "aiohttp", "lmft_job")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_importing_the_package_alone_imports_no_other():
    code = "import sys; before = set(sys.modules); import lmft_api; print(set(sys.modules) - before)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "{'lmft_api'}"


def largest(schema: dict[str, Any]) -> int:
    """Characters that a value may have as JSON, by the bounds of each field alone."""
    kind = schema.get("type")
    if "enum" in schema:
        return max(len(str(choice)) for choice in schema["enum"]) + 2
    if PRESERVE in schema:
        return MAX_JSON_BYTES
    if kind == "array":
        return 2 + int(schema["maxItems"]) * (largest(schema["items"]) + 1)
    if "additionalProperties" in schema:
        return 2 + int(schema["maxProperties"]) * (253 + 4 + largest(schema["additionalProperties"]))
    if kind == "object":
        return 2 + sum(len(name) + 4 + largest(entry) for name, entry in schema.get("properties", {}).items())
    return int(schema["maxLength"]) + 2 if kind == "string" else 20


def test_all_that_a_spec_may_hold_is_less_than_128_kib():
    # given the texts that are bounded together beside each by itself
    pod = ["labels", "annotations", "nodeSelector", "tolerations", "env", "volumes"]
    together = [
        ("dataset", ["files"], 8000), ("sample", ["prompts"], 8000), ("podTemplate", pod, 8000),
        ("sample", ["conversations"], 24_000),
    ]  # fmt: skip
    whole = largest(SPEC)
    for section, fields, most in together:
        schemas = [SPEC["properties"][section]["properties"][field] for field in fields]
        whole += most + sum(around(schema) for schema in schemas) - sum(map(largest, schemas))
        assert any(str(most) in rule.cel for rule in SPEC["properties"][section][RULES_KEY])
    # then they leave a tenant no room
    assert whole < 128 * 1024


def around(schema: dict[str, Any]) -> int:
    """What stands around the texts of a list or a map: its entries with texts of no length."""
    most = schema.get("maxItems") or schema["maxProperties"]
    entry = schema.get("items") or {}
    if any("items" in part for part in entry.get("properties", {}).values()):
        return int(most) * 24  # the rule counts what stands around each of their entries
    names = sum(len(name) + 8 for name in entry.get("properties", {}))
    enums = sum(largest(part) for part in entry.get("properties", {}).values() if "enum" in part)
    return int(most) * (6 + names + enums)


@pytest.mark.parametrize("levels", [1_200, 9_000, 20_000])
def test_a_configuration_that_nests_too_deep_is_a_problem_and_no_exception(levels: int):
    config: Any = 1
    for _ in range(levels):
        config = {"a": config}
    spec = {"model": {"fromConfig": config, "tokenizer": {"name": "gpt2"}}, "dataset": {"name": "d"}}
    assert [str(problem) for problem in spec_problems(spec)] == [
        f"spec.model.fromConfig: nests {levels + 2} levels deep, more than is read"
    ]
    assert parse_readable(spec).dataset.name == "d"


CONFIGS = [
    ({"a": [[[[[[[[1]]]]]]]]}, "nests 9 levels deep, at most 8 are read"),
    ({"a": "ü" * 8_200}, "is 16,408 bytes as JSON, at most 16,384 are read"),
    ({"a": list(range(4_000))}, "bytes as JSON, at most 16,384 are read"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS)
def test_a_configuration_is_bounded_in_depth_and_size(config: Any, message: str):
    spec = {"model": {"fromConfig": config, "tokenizer": {"name": "gpt2"}}, "dataset": {"name": "d"}}
    [problem] = spec_problems(spec)
    assert problem.path == "spec.model.fromConfig"
    assert message in problem.message
