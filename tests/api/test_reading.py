"""Reading manifest files, by the rules of the reader that kubectl uses."""

import math
from pathlib import Path
from typing import Any

import pytest

from lmft_api.manifest.reader import Document, read_documents
from lmft_api.manifest.validation import Problem, document_problems, parse_readable, spec_problems

LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}' if before else 'ha'] * 9)}]\n"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)
GOOD = "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: a}\n"


def read(tmp_path: Path, text: str | bytes) -> list[Document]:
    file = tmp_path / "manifest.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_documents(file))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e3", 1000),
        ("8.0", 8),
        ("8.", 8),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("0b101", 5),
        ("08", 8),
        ("-3", -3),
        ("+3", 3),
        ("1e400", "1e400"),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("0xFFFFFFFFFFFFFFFFF", "0xFFFFFFFFFFFFFFFFF"),
        ("9" * 400, "9" * 400),
        ("yes", True),
        ("on", True),
        ("n", False),
        ("off", False),
        ("yEs", "yEs"),
        ("~", None),
        ("null", None),
        ("", None),
        ("190:20:30", "190:20:30"),
        ("2001-12-14", "2001-12-14"),
        ("'1'", "1"),
        ('"2e-5"', "2e-5"),
    ],
)
def test_a_scalar_is_what_kubectl_makes_of_it(tmp_path: Path, text: str, value: Any):
    (document,) = read(tmp_path, f"x: {text}\n")

    assert repr(document.content["x"]) == repr(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", 'the key "a" is given twice (line 2, column 1)'),
        ("a: [1\n", "is not valid YAML: expected ',' or ']'"),
        ("a:\n\t- b\n", "cannot start any token (line 2, column 1)"),
        ("a: .nan\n", ".nan cannot be written as JSON (line 1, column 4)"),
        ("a: -.inf\n", "-.inf cannot be written as JSON"),
        ("~: a\n", "a key must not be null"),
        ("a: !!python/object:os.system b\n", "is not valid YAML: could not determine a constructor"),
        ("a: *b\n", "found undefined alias"),
        ("[" * 5000, "is nested too deeply"),
        (
            "a: 1\nb: !!binary aGVsbG8=\n",
            "!!binary has no counterpart in JSON; write text, a number, a list or an object (line 2",
        ),
        ("a: !!set {b, c}\n", "!!set has no counterpart in JSON"),
        ("a: !!timestamp 2026-01-01\n", "!!timestamp has no counterpart in JSON"),
        ("a: \x01\n", "is not valid YAML: the character #x0001 is not allowed (position 3)"),
        ("a: &x {b: *x}\n", 'the anchor "x" contains itself (line 1, column 11)'),
        (LAUGHS, "the aliases repeat too much"),
        ('a: "\\ud800"\n', "half of a surrogate pair is not a character (line 1, column 4)"),
        (b"a" * (3 << 20) + b"a", "is larger than 3 MiB"),
        (b"a: \xff\n", "is not UTF-8 text (byte 3)"),
    ],
)
def test_what_cannot_be_read_is_one_problem_with_its_place(tmp_path: Path, text: str | bytes, message: str):
    (document,) = read(tmp_path, text)

    (problem,) = document.problems
    assert problem.path == ""
    assert message in problem.message


def test_a_file_that_is_not_there_is_one_problem(tmp_path: Path):
    (document,) = read_documents(tmp_path / "none.yaml")

    assert document.problems == (Problem("", "cannot be read: No such file or directory"),)


def test_documents_keep_their_position_and_empty_ones_are_passed_over(tmp_path: Path):
    documents = read(tmp_path, "a: 0\n---\na: 1\n---\n---\nb: 2\n")

    assert [(document.number, document.content) for document in documents] == [
        (1, {"a": 0}),
        (2, {"a": 1}),
        (4, {"b": 2}),
    ]


def test_a_list_is_read_as_its_items_and_one_without_items_as_it_stands(tmp_path: Path):
    documents = read(
        tmp_path,
        "kind: List\nitems: [{a: 1}, {a: 2}]\n---\nkind: LMFineTuneList\nitems: []\n---\nkind: List\nitems: 3\n",
    )

    assert [(document.number, document.content) for document in documents] == [
        (1, {"a": 1}),
        (1, {"a": 2}),
        (3, {"kind": "List", "items": 3}),
    ]


def test_documents_before_a_broken_one_are_read(tmp_path: Path):
    first, second = read(tmp_path, "a: 1\n---\nb: [\n")

    assert first.content == {"a": 1}
    assert second.number == 2
    assert second.problems


def test_anchors_and_merges_are_resolved(tmp_path: Path):
    (document,) = read(tmp_path, "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n")

    assert document.content["d"] == {"b": 1, "c": 3}


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_object_is_one_problem(document: Any):
    assert document_problems(document) == [Problem("", "must be an object with apiVersion, kind, metadata and spec")]


def test_all_problems_come_at_once_in_the_order_of_their_paths(tmp_path: Path):
    (document,) = read(
        tmp_path,
        GOOD + "spec:\n  model: {name: a, fromConfig: {}}\n  dataset: {builtin: PythonDocs, textFeild: a}\n"
        "  training: {learningRate: 2e-5, scheduler: linear, weightDecay: '11'}\n"
        "  podTemplate: {env: [{name: A, value: b}, {name: A, value: b}], labels: {-x: a}}\n",
    )

    problems = document_problems(document.content)

    assert [problem.path for problem in problems] == [
        "spec.dataset.textFeild",
        "spec.model",
        "spec.podTemplate.env[1]",
        "spec.podTemplate.labels",
        "spec.training.learningRate",
        "spec.training.scheduler",
        "spec.training.weightDecay",
    ]
    assert str(problems[0]) == "spec.dataset.textFeild: unknown field; did you mean textField?"


def test_a_rule_over_a_field_of_the_wrong_type_says_nothing_more(tmp_path: Path):
    problems = spec_problems(
        {"model": {"name": "a"}, "dataset": {"builtin": "PythonDocs"}, "podTemplate": {"volumes": [3]}}
    )

    assert problems == [Problem("spec.podTemplate.volumes[0]", "must be an object, not a number")]


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}])
def test_what_json_cannot_hold_is_a_problem_and_no_crash(value: Any):
    (problem,) = spec_problems({"model": {"name": value}, "dataset": {"builtin": "PythonDocs"}})

    assert "cannot be written as JSON" in problem.message


def test_the_task_is_causal_unless_set_when_rules_look_at_it():
    dataset = {"builtin": "PythonDocs", "maskProbability": "0.15"}

    (problem,) = spec_problems({"task": None, "model": {"name": "a"}, "dataset": dataset})

    assert problem.path == "spec.dataset.maskProbability"


WHOLE: dict[str, Any] = {
    "model": {"name": "gpt2"}, "dataset": {"name": "a/b"}, "output": {"uri": "s3://models"}, "maxRetries": 7,
}  # fmt: skip
UNKNOWN = {"name": "unknown"}


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        (WHOLE, WHOLE),
        (WHOLE | {"training": {"seed": -1}}, WHOLE),
        (WHOLE | {"model": {"name": "a b"}, "noLonger": 1}, WHOLE | {"model": UNKNOWN}),
        (WHOLE | {"dataset": {"files": []}, "task": "Gone"}, WHOLE | {"dataset": UNKNOWN}),
        ({"suspend": True}, {"model": UNKNOWN, "dataset": UNKNOWN, "suspend": True}),
        ({"maxRetries": "many", "suspend": True}, {"model": UNKNOWN, "dataset": UNKNOWN, "suspend": True}),
        ({}, {"model": UNKNOWN, "dataset": UNKNOWN}),
        ([], {"model": UNKNOWN, "dataset": UNKNOWN}),
    ],
)
def test_what_can_be_read_of_a_spec_is_read(spec: Any, read: dict[str, Any]):
    assert parse_readable(spec).to_json() == {"task": "CausalLM"} | read


LINES = """\
# a comment
apiVersion: lmfinetune.dev/v1alpha1
spec:
  model: {name: a}

  podTemplate:
    annotations:
      a.b/c: "1"
      a: "2"
    env:
    - name: A
      value: x
    - {name: B}
---
kind: List
items:
- spec:
    task: x
- spec: &shared
    model: y
- spec: *shared
"""


@pytest.mark.parametrize(
    ("document", "path", "line"),
    [
        (0, "", 2),
        (0, "apiVersion", 2),
        (0, "spec.model.name", 4),
        (0, "spec.model.missing.deeper", 4),
        (0, "spec.dataset", 3),
        (0, "metadata", 2),
        (0, "spec.podTemplate.annotations.a.b/c", 8),
        (0, "spec.podTemplate.annotations.a", 9),
        (0, "spec.podTemplate.env[0].value", 12),
        (0, "spec.podTemplate.env[1].value", 13),
        (0, "spec.podTemplate.env[7].value", 10),
        (1, "spec.task", 18),
        (2, "spec.model", 20),
        (3, "spec.model", 20),
        (3, "spec", 21),
    ],
)
def test_a_problem_has_the_line_of_its_field_or_of_the_nearest_parent(tmp_path: Path, document, path, line) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(LINES)

    assert list(read_documents(file))[document].line(path) == line
