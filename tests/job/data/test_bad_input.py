"""Data that cannot be trained on: every problem at once, with its place and what to do, and nothing half-written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.data_helpers import json_data, prepare_toy, write_lines

from lmft_api.reasons import ExitCode, Reason
from lmft_job.errors import InvalidError, JobError, RefusedError

GOOD = [{"text": f"row {number} holds some words", "label": number % 2} for number in range(60)]


def failure(dataset: dict[str, Any], tmp_path: Path, task: str = "CausalLM", **more: Any) -> JobError:
    """How preparing ends; nothing may be left behind."""
    with pytest.raises(JobError) as caught:
        prepare_toy(dataset, tmp_path / "cache", task, **more)
    assert list((tmp_path / "cache").iterdir()) == []
    return caught.value


def lines(tmp_path: Path, *rows: Any, name: str = "data.jsonl") -> str:
    return write_lines(tmp_path / name, *rows)


def raw(tmp_path: Path, body: bytes, name: str = "data.jsonl") -> str:
    (tmp_path / name).write_bytes(body)
    return f"file://{tmp_path}/{name}"


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "malformed line": ("json", b'{"text": "one"}\n{"text": "two"\n', r"line 2 is not JSON"),
    "no object": ("json", b'{"text": "one"}\n"two"\n', r"line 2 is not an object"),
    "two objects in a line": ("json", b'{"text": "one"}{"text": "two"}\n', r"line 1 is not JSON \(Extra data"),
    "deep nesting": ("json", b'{"text": ' + b"[" * 100_000 + b"\n", r"line 1 is n"),
    "array cut short": ("json", b'[\n{"text": "one"},\n{"text": "two"}\n', r"line 4 is not JSON"),
    "array without comma": ("json", b'[{"text": "one"}\n{"text": "two"}]', r"line 2: expected ','"),
    "array of strings": ("json", b'["one", "two"]', r"line 1: an element is not an object"),
    "array with a broken element": ("json", b'[{"text": "one"},\n{"text" "two"}]', r"line 2 is not JSON"),
    "json not UTF-8": ("json", b'{"text": "one"}\n{"text": "caf\xe9"}\n', r"byte 29 \(line 2\) is not UTF-8"),
    "text not UTF-8": ("text", b"one\ntwo \xff\n", r"byte 8 \(line 2\) is not UTF-8"),
    "csv not UTF-8": ("csv", b"text\none\ncaf\xe9\n", r"byte 12 \(line 3\) is not UTF-8"),
    "a field twice": (
        "json",
        b'{"text": "1"}\n{"text": "a", "n": 1, "text": "b"}\n',
        r"line 2 has the field 'text' t",
    ),
    "twice in an array": (
        "json",
        b'[{"text": "1"},\n{"text": "a",\n"text": "b"}]',
        r"line 2 has the field 'text' twice",
    ),
    "tar": ("text", b"a.txt" + bytes(252) + b"ustar" + bytes(250), r"data.text is an archive \(tar\); unpack it"),
    "tar of json": ("json", b"a" + bytes(256) + b"ustar" + bytes(250), r"data.json is an archive \(tar\); unpack"),
    "UTF-16": ("json", '{"text": "one"}\n'.encode("utf-16"), r"data.json is UTF-16; convert it to UTF-8"),
    "gzip": ("csv", b"\x1f\x8b\x08\x00\n\xff\n\xff", r"data.csv is compressed \(gzip\); unpack it$"),
    "csv row too long": (
        "csv",
        b"text,label\none,1\ntwo,2,3\n",
        r"line 3 has 3 values, the first line names 2 columns; quote values that hold commas",
    ),
    "csv row too short": (
        "csv",
        b"text,label\none,1\ntwo\n",
        r"line 3 has 1 value, the first line names 2 columns; add what is missing",
    ),
    "a number of thousands of digits": (
        "json",
        b'{"text": ' + b"1" * 5000 + b"}\n",
        r"line 1 .*thousands of digits; put",
    ),
    "csv quote not closed": ("csv", b'text,label\n"one,1\n', r"is not CSV"),
    "csv same name twice": ("csv", b"text,text\none,two\n", r"two columns have the same name"),
    "no parquet": ("parquet", b"PAR1 but not really", r"not a readable parquet file"),
    "empty file": ("json", b"", r"spec.dataset.split: there are no rows to train on"),
    "blank lines only": ("json", b"\n\n\n", r"spec.dataset.split: there are no rows to train on"),
}


@pytest.mark.parametrize("case", BAD_FILES, ids=str)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, case: str) -> None:
    kind, body, expected = BAD_FILES[case]
    address = raw(tmp_path, body, f"data.{kind}")

    error = failure({"files": [address], "format": kind}, tmp_path)

    assert isinstance(error, InvalidError)
    assert error.exit_code == ExitCode.INVALID
    assert error.reason == Reason.DATASET_INVALID
    assert re.search(expected, str(error)), str(error)
    assert "Traceback" not in str(error)
    assert all(problem.startswith("spec.dataset.") for problem in error.problems)
    if "no rows" not in expected:
        assert f"data.{kind}" in str(error)


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ('{"answers": {"text": "a", "text": "b"}}', "answers.text"),
        ('{"answers": [{"text": "a"}, {"text": "a", "text": "b"}]}', "answers.text"),
        ('{"answers": 1, "answers": {"text": "b"}}', "answers.text"),
        ('{"answers.text": "a", "answers.text": "b"}', "answers.text"),
        ('{"téxt": "a", "t\\u00e9xt": "b", "téxt": "c"}', "téxt"),
    ],
)
def test_a_field_that_stands_twice_is_found_where_the_text_is_looked_for(row: str, path: str, tmp_path: Path) -> None:
    address = raw(tmp_path, (row + "\n").encode() * 20)
    error = failure({"files": [address], "format": "json", "textField": path}, tmp_path)
    assert "line 1 has the field" in str(error)


def test_fields_within_fields_of_the_same_name_are_no_error(tmp_path: Path) -> None:
    deep = b'{"text": ' * 600 + b"1" + b"}" * 600 + b"\n"
    error = failure({"files": [raw(tmp_path, deep * 3)], "format": "json"}, tmp_path)
    assert "'text' holds a struct" in str(error)


def test_a_field_that_nobody_asks_for_may_stand_twice(tmp_path: Path) -> None:
    row = b'{"n": 1, "n": 2, "meta": {"text": 1, "text": 2}, "text": "row \\"text\\" holds some words"}\n'
    prepared = prepare_toy({"files": [raw(tmp_path, row * 60)], "format": "json", "blockSize": 8}, tmp_path / "cache")
    assert prepared.figures.train_rows == 48


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    one = raw(tmp_path, b'{"text": "a"}\nnonsense\n{"text": "b"}\n{broken\n', "one.jsonl")
    two = raw(tmp_path, b'{"text": "\xff"}\n', "two.jsonl")

    error = failure(json_data(one, two, blockSize=64), tmp_path, max_positions=32)

    assert isinstance(error, InvalidError)
    places = [problem.split(" is not")[0].split("more")[0] for problem in error.problems]
    assert len(places) == 4
    assert "blockSize: 64 is" in places[0]
    assert "one.jsonl: line 2" in places[1]
    assert "one.jsonl: line 4" in places[2]
    assert "two.jsonl: byte 10" in places[3]


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    error = failure(json_data(raw(tmp_path, b"nonsense\n" * 1000)), tmp_path)

    assert isinstance(error, InvalidError)
    assert len(error.problems) == 11
    assert "at least 10 more" in error.problems[-1]


FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": ({"body": "words"}, {}, r"textField: no field 'text'; the data has body"),
    "misspelt": ({"text": "words", "title": "t"}, {"textField": "txet"}, r"did you mean text\?"),
    "nested": (
        {"answers": {"text": ["w"], "score": [1]}},
        {"textField": "answers.txt"},
        r"did you mean answers.text\?",
    ),
    "a struct": ({"answers": {"text": ["w"]}}, {"textField": "answers"}, r"a struct with the fields text; name one"),
    "numbers": ({"text": 5}, {}, r"'text' holds int values, not text"),
    "null everywhere": ({"text": None}, {}, r"'text' is null in every row"),
    "blank everywhere": ({"text": "  "}, {}, r"none of the 48 rows to train on has a value in 'text'"),
}


@pytest.mark.parametrize("case", FIELDS, ids=str)
def test_a_field_that_is_no_text_is_explained(tmp_path: Path, case: str) -> None:
    row, more, expected = FIELDS[case]

    error = failure(json_data(lines(tmp_path, *[row] * 60), **more), tmp_path)

    assert error.reason == Reason.DATASET_INVALID
    assert re.search(expected, str(error)), str(error)


LABELS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "absent": ([None], {"labelField": "lable"}, r"labelField: no field 'lable'; .*did you mean label\?"),
    "continuous": ([0.25, 0.5], {}, r"is continuous \(such as 0\.\d+\); classes are needed"),
    "continuous text": (["0.25", "0.75"], {}, r"is continuous"),
    "one class": (["same"], {}, r"only one class in the training rows \('same'\)"),
    "lists": ([[1, 2], [3]], {}, r"holds list values; one label per row is needed"),
    "text and numbers": ([1, "one"], {}, r"mixes text and numbers"),
}


@pytest.mark.parametrize("case", LABELS, ids=str)
def test_a_label_that_is_no_class_is_explained(tmp_path: Path, case: str) -> None:
    values, more, expected = LABELS[case]
    rows = [{"text": f"words {n}", "label": values[n % len(values)]} for n in range(60)]

    error = failure(json_data(lines(tmp_path, *rows), **more), tmp_path, "SequenceClassification")

    assert re.search(expected, str(error)), str(error)
    assert "spec.dataset.labelField" in str(error)


def test_thousands_of_labels_are_no_classes(tmp_path: Path) -> None:
    rows = [{"text": f"words {n}", "label": f"title {n}"} for n in range(1500)]
    data = json_data(lines(tmp_path, *rows))

    assert "1,200 different values" in str(failure(data, tmp_path, "SequenceClassification"))


def test_a_held_out_label_that_training_lacks_is_told(tmp_path: Path) -> None:
    rows = [{"text": f"words {n}", "label": "ab"[n % 2] if n < 50 else "c"} for n in range(60)]
    data = json_data(lines(tmp_path, *rows), split="train[:50]", evalSplit="train[50:]")

    assert "labels that no training row has: 'c'" in str(failure(data, tmp_path, "SequenceClassification"))


SPLITS: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"split": "train[60:]"}, r"split: there are no rows to train on; spec.dataset.testPercent"),
    "eval empty": ({"evalSplit": "train[90:]"}, r"evalSplit: there are no rows to evaluate on"),
    "unknown": ({"split": "validation"}, r"split: .* has one split, train, not 'validation'"),
    "eval unknown": ({"evalSplit": "test"}, r"evalSplit: .* has one split, train, not 'test'"),
    "no slice": ({"split": "train[5000]"}, r"split: 'train\[5000\]' is not a split; write train, train\[:5000\]"),
    "summed": ({"split": "train+test"}, r"'train\+test' is not a split"),
    "everything held out": ({"split": "train[:1]"}, r"split: there are no rows to train on"),
}


@pytest.mark.parametrize("case", SPLITS, ids=str)
def test_a_split_that_cannot_be_is_explained(tmp_path: Path, case: str) -> None:
    more, expected = SPLITS[case]

    error = failure(json_data(lines(tmp_path, *GOOD), **more), tmp_path)

    assert re.search(expected, str(error)), str(error)


def test_fewer_tokens_than_one_block_is_told_for_both_sides(tmp_path: Path) -> None:
    error = failure(json_data(lines(tmp_path, *GOOD), blockSize=4096), tmp_path)

    assert isinstance(error, InvalidError)
    assert [problem.partition(" texts")[0] for problem in error.problems] == [
        "spec.dataset.blockSize: the training",
        "spec.dataset.blockSize: the held-out",
    ]
    assert "fewer than one block of 4096" in error.problems[0]


def test_a_block_longer_than_the_models_positions_is_refused(tmp_path: Path) -> None:
    error = failure(json_data(lines(tmp_path, *GOOD), blockSize=2048), tmp_path, max_positions=1024)

    assert isinstance(error, InvalidError)
    assert error.problems == (
        "spec.dataset.blockSize: 2048 is more than the 1024 positions of the model; set at most 1024",
    )
    assert error.reason == Reason.INVALID_SPEC


def test_files_that_are_not_there_are_refused_with_what_is(tmp_path: Path) -> None:
    lines(tmp_path, *GOOD, name="train-0.jsonl")

    error = failure(json_data(f"file://{tmp_path}/tain-*.jsonl", f"file://{tmp_path}/no.jsonl"), tmp_path)

    assert isinstance(error, RefusedError)
    assert error.reason == Reason.DATASET_NOT_FOUND
    assert "train-0.jsonl" in str(error)
    assert "no.jsonl" in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/lmft/secrets/hub/token",
        "file:///proc/self/environ",
        "file:///tmp/../etc/passwd",
        "file:///tmp/%2e%2e/x",
    ],
)
def test_a_path_outside_is_refused(tmp_path: Path, address: str) -> None:
    error = failure({"files": [address], "format": "text"}, tmp_path)

    assert "outside" in str(error)
    assert "spec.dataset.files[0]" in str(error)


def test_a_link_does_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("/proc/self/environ")

    error = failure({"files": [f"file://{tmp_path}/link.txt"], "format": "text"}, tmp_path)

    assert "lies outside of what a manifest may read" in str(error)


@pytest.mark.parametrize("target", ["nowhere.txt", "link.txt"])
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, target: str) -> None:
    (tmp_path / "link.txt").symlink_to(target)

    error = failure({"files": [f"file://{tmp_path}/*.txt"], "format": "text"}, tmp_path)

    assert error.reason == Reason.DATASET_NOT_FOUND
    assert "link.txt is a broken link" in str(error)


def test_what_is_wrong_survives_as_json(tmp_path: Path) -> None:
    error = failure(json_data(raw(tmp_path, '{"text": "ü\ud83d"'.encode("utf-8", "replace"))), tmp_path)

    assert json.loads(json.dumps(str(error))) == str(error)
