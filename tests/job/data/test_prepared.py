"""Prepared data is found again by its fingerprint, here and in storage, and made again when anything changed."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.complete_folders import files_of
from support.corpora import rows, write_json
from support.data_helpers import json_data, prepare_toy, settings_of, write_lines

from lmft_api.tasks import Task
from lmft_job.data import prepared
from lmft_job.data.prepared import reopen
from lmft_job.data.rows import BlockRows, LabelledRows
from lmft_job.data.tokens import packing
from lmft_job.data.tokens.examples import row_segments
from lmft_job.models import tokenizers
from lmft_job.storage import open_store


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_json(tmp_path / "corpus.jsonl", 60, vocabulary=300, mean_words=15)


def data_of(corpus: Path, **more: Any) -> dict[str, Any]:
    return json_data(f"file://{corpus}", **{"textField": "answers.text", "blockSize": 16, **more})


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the times that a core is asked to encode."""
    counts: list[int] = []
    flatten = packing._flatten

    def counting(encodings: list[Any]) -> Any:
        counts.append(len(encodings))
        return flatten(encodings)

    monkeypatch.setattr(packing, "_flatten", counting)
    return counts


def test_a_second_start_skips_tokenising(corpus: Path, tmp_path: Path, tokenised: list[int]) -> None:
    first = prepare_toy(data_of(corpus), tmp_path / "cache")
    tokenised.clear()

    second = prepare_toy(data_of(corpus), tmp_path / "cache")

    assert (first.reused, second.reused) == (False, True)
    assert tokenised == []
    assert second.figures == first.figures
    assert second.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert (second.train[5]["input_ids"] == first.train[5]["input_ids"]).all()


def test_another_machine_finds_it_in_storage(corpus: Path, tmp_path: Path, tokenised: list[int]) -> None:
    store = open_store(f"file://{tmp_path}/storage/default")
    first = prepare_toy(data_of(corpus), tmp_path / "one", store=store)
    tokenised.clear()

    second = prepare_toy(data_of(corpus), tmp_path / "two", store=store)

    assert second.reused
    assert tokenised == []
    assert (tmp_path / "storage/default/datasets" / first.fingerprint / "MANIFEST.json").is_file()
    assert [row["input_ids"].tolist() for row in map(second.train.__getitem__, range(len(second.train)))] == [
        row["input_ids"].tolist() for row in map(first.train.__getitem__, range(len(first.train)))
    ]


def test_it_is_reopened_without_a_look_at_its_source(corpus: Path, tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/storage/default")
    first = prepare_toy(data_of(corpus), tmp_path / "one", store=store)
    corpus.unlink()

    found = reopen(first.fingerprint, settings_of(data_of(corpus)), None, store=store, cache=tmp_path / "two")

    assert found is not None
    assert found.figures == first.figures
    assert reopen("0" * 32, settings_of(data_of(corpus)), None, store=store, cache=tmp_path / "two") is None


def test_a_changed_byte_is_prepared_anew(corpus: Path, tmp_path: Path) -> None:
    first = prepare_toy(data_of(corpus), tmp_path / "cache")
    body = bytearray(corpus.read_bytes())
    place = body.index(b"text") + 20
    body[place] = ord("x") if body[place] != ord("x") else ord("y")
    corpus.write_bytes(bytes(body))

    second = prepare_toy(data_of(corpus), tmp_path / "cache")

    assert not second.reused
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"blockSize": 32},
        {"testPercent": 30},
        {"split": "train[:50]"},
        {"split": "train[:80%]", "evalSplit": "train[80%:]"},
        {"textField": "id", "blockSize": 8},
    ],
    ids=str,
)
def test_a_changed_setting_is_prepared_anew(corpus: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    first = prepare_toy(data_of(corpus), tmp_path / "cache")

    second = prepare_toy(data_of(corpus, **change), tmp_path / "cache")

    assert not second.reused
    assert second.fingerprint != first.fingerprint


def test_another_tokenizer_seed_or_code_is_prepared_anew(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(row["answers"]["text"]) for row in rows(60, vocabulary=300, mean_words=15)]
    one = tokenizers.train(iter([texts]), 400, Task.CAUSAL_LM)
    other = tokenizers.train(iter([texts]), 401, Task.CAUSAL_LM)
    seen = {prepare_toy(data_of(corpus), tmp_path / "cache", tokenizer=one).fingerprint}

    assert prepare_toy(data_of(corpus), tmp_path / "cache", tokenizer=one).reused
    seen.add(prepare_toy(data_of(corpus), tmp_path / "cache", tokenizer=other).fingerprint)
    seen.add(prepare_toy(data_of(corpus), tmp_path / "cache", tokenizer=one, seed=7).fingerprint)
    monkeypatch.setattr(prepared, "code_version", lambda: "another")
    seen.add(prepare_toy(data_of(corpus), tmp_path / "cache", tokenizer=one).fingerprint)

    assert len(seen) == 4


def test_a_call_of_the_tokenizer_does_not_change_its_identity() -> None:
    tokenizer = tokenizers.train(iter([["some words"]]), 300, Task.MASKED_LM)
    before = tokenizers.identity(tokenizer)

    tokenizer(["a", "longer text than that"], padding=True, truncation=True, max_length=3)

    assert tokenizers.identity(tokenizer) == before


@pytest.mark.parametrize("damage", ["alter", "truncate", "remove"])
def test_damaged_data_in_storage_is_passed_over_and_mended(corpus: Path, tmp_path: Path, damage: str) -> None:
    store = open_store(f"file://{tmp_path}/storage/default")
    first = prepare_toy(data_of(corpus), tmp_path / "one", store=store)
    stored = files_of(tmp_path / "storage/default/datasets" / first.fingerprint) / "train.arrow"
    body = stored.read_bytes()
    if damage == "remove":
        stored.unlink()
    else:
        stored.write_bytes(body[:-9] if damage == "truncate" else body[:-200] + b"\1" * 200)

    second = prepare_toy(data_of(corpus), tmp_path / "two", store=store)
    third = prepare_toy(data_of(corpus), tmp_path / "three", store=store)

    assert (second.reused, third.reused) == (False, True)
    assert (files_of(tmp_path / "storage/default/datasets" / first.fingerprint) / "train.arrow").read_bytes() == body


def test_damaged_data_on_this_machine_is_made_again(corpus: Path, tmp_path: Path) -> None:
    first = prepare_toy(data_of(corpus), tmp_path / "cache")
    (first.folder / "train.arrow").write_bytes(b"nonsense")

    assert not prepare_toy(data_of(corpus), tmp_path / "cache").reused


@pytest.mark.parametrize("name", ["MANIFEST.json", "prepared.json"])
def test_data_in_a_format_of_a_newer_release_is_made_again_here_and_stays_there(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    # given prepared data in storage that only a newer release can read
    uri = f"file://{tmp_path}/storage/default"
    prepare_toy(data_of(corpus), tmp_path / "one", store=open_store(uri))
    [manifest] = (tmp_path / "storage").rglob("MANIFEST.json")
    body = json.loads(manifest.read_text())
    theirs = manifest.parent / body["folder"] / "prepared.json"
    if name == "prepared.json":
        theirs.write_text(json.dumps(json.loads(theirs.read_text()) | {"format": 99}))
        data = theirs.read_bytes()
        body["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    else:
        body["format"] = 99
    manifest.write_text(json.dumps(body))
    before = contents(tmp_path / "storage")
    # when another machine wants the same
    said: list[str] = []
    second = prepare_toy(data_of(corpus), tmp_path / "two", store=open_store(uri), say=said.append)
    # then it makes its own
    assert not second.reused
    assert "has format 99 and was written by a newer release" in said[0]
    assert contents(tmp_path / "storage") == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_file_of_the_code_that_decides_on_rows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a copy of the package
    package = tmp_path / "lmft_job"
    shutil.copytree(prepared._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    plain = prepared.code_version()
    monkeypatch.setattr(prepared, "_PACKAGE", package)
    assert prepared.code_version() == plain
    listed = [path for pattern in prepared.CODE for path in package.glob(pattern)]
    assert {"prepared.py", "packing.py", "source.py", "fields.py", "config.py", "tokenizers.py"} <= {
        path.name for path in listed
    }
    # when a byte of one of its files changes
    for path in package.rglob("*.py"):
        whole = path.read_bytes()
        path.write_bytes(whole + b"#")
        # then data prepared before has another name, if the file decides on rows
        assert (prepared.code_version() != plain) == (path in listed), path
        path.write_bytes(whole)


def test_nothing_half_written_is_left_after_a_failure(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/storage/default")
    address = write_lines(tmp_path / "short.jsonl", {"text": "few"}, {"text": "words"})

    with pytest.raises(Exception, match="fewer than one block"):
        prepare_toy(json_data(address), tmp_path / "cache", store=store)

    assert list((tmp_path / "cache").iterdir()) == []
    assert store.list("") == []


def test_the_same_data_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    first = prepare_toy(data_of(corpus), tmp_path / "one")
    second = prepare_toy(data_of(corpus), tmp_path / "two")

    for name in ("train.arrow", "eval.arrow", "tokenizer/tokenizer.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_the_figures_add_up(corpus: Path, tmp_path: Path) -> None:
    figures = prepare_toy(data_of(corpus), tmp_path / "cache").figures

    assert (figures.train_rows, figures.eval_rows, figures.dropped_rows) == (48, 12, 0)
    assert figures.train_blocks is not None
    assert figures.train_tokens == figures.train_blocks * 16
    assert figures.dropped_tokens is not None
    assert 0 <= figures.dropped_tokens < 2 * 16
    assert figures.lengths is not None
    assert figures.lengths.minimum <= figures.lengths.median <= figures.lengths.p95 <= figures.lengths.maximum
    assert sum(texts for _, texts in figures.lengths.histogram) == 48
    assert figures.lengths.limit == 16


def test_a_row_is_shown_with_the_masks_of_the_first_epoch(corpus: Path, tmp_path: Path) -> None:
    data = prepare_toy(data_of(corpus), tmp_path / "cache", "MaskedLM")

    shown = row_segments(data.train, data.tokenizer, data.labels, 0, 2_000)

    predicted = "".join(segment.text for segment in shown if segment.trained)
    assert data.tokenizer.mask_token in predicted
    assert any(not segment.trained for segment in shown)


@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM"])
def test_the_python_docs_need_no_network(tmp_path: Path, task: str) -> None:
    prepared_docs = prepare_toy({"builtin": "PythonDocs"}, tmp_path / "cache", task)

    assert prepared_docs.noun == "topics"
    assert prepared_docs.figures.train_rows + prepared_docs.figures.eval_rows > 70
    assert isinstance(prepared_docs.train, BlockRows)
    text = prepared_docs.tokenizer.decode(prepared_docs.train.block(0))
    assert any(word in text for word in ("the", "is"))


def test_rows_for_classification_carry_ids_and_numbers_of_their_labels(tmp_path: Path) -> None:
    address = write_lines(
        tmp_path / "reviews.jsonl",
        *[{"text": f"row {number} of words", "label": ["pos", "neg", "mixed"][number % 3]} for number in range(60)],
        {"text": "no label here", "label": None},
    )

    reviews = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification", max_positions=6)

    assert reviews.labels == ["mixed", "neg", "pos"]
    assert reviews.figures.dropped_rows == 1
    assert isinstance(reviews.train, LabelledRows)
    for index in range(len(reviews.train)):
        item = reviews.train[index]
        assert len(item["input_ids"]) <= 6
        assert item["labels"] in (0, 1, 2)
    batch = reviews.collator([reviews.train[0], reviews.train[1]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape


def test_rows_for_classification_are_cut_where_no_more_fits(tmp_path: Path) -> None:
    rows = [{"text": f"row {number} of many words", "label": number % 2} for number in range(40)]
    data = json_data(write_lines(tmp_path / "reviews.jsonl", *rows))

    reviews = prepare_toy(data, tmp_path / "cache", "SequenceClassification", max_positions=5)

    assert {len(reviews.train[index]["input_ids"]) for index in range(len(reviews.train))} == {5}


def test_labels_stay_with_their_rows(tmp_path: Path) -> None:
    marks = {"a": "aaaa aaaa", "b": "bbbb bbbb"}
    written = [{"text": marks["ab"[n % 2]], "label": "ab"[n % 2]} for n in range(5000)]
    address = write_lines(tmp_path / "marks.jsonl", *written)

    reviews = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification")

    first, second = {}, {}
    for side, seen in ((reviews.train, first), (reviews.held_out, second)):
        for index in range(len(side)):
            item = side[index]
            seen.setdefault(item["labels"], set()).add(tuple(np.asarray(item["input_ids"]).tolist()))
    assert first == second
    assert [len(texts) for texts in first.values()] == [1, 1]
    assert first[0] != first[1]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1, 0, 1], ["0", "1"]),
        ([10, 9, 2, 10], ["2", "9", "10"]),
        ([True, False, True, False], ["False", "True"]),
        ([1.0, 0.0, 1.0, 0.0], ["0", "1"]),
    ],
)
def test_label_names_come_from_the_data(tmp_path: Path, values: list[Any], names: list[str]) -> None:
    lines = [{"text": f"words {n}", "label": values[n % len(values)]} for n in range(40)]
    address = write_lines(tmp_path / "labels.jsonl", *lines)

    assert prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification").labels == names


def test_class_names_in_a_parquet_file_are_used(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    lines = {"text": [f"words {n}" for n in range(40)], "label": [n % 2 if n != 7 else -1 for n in range(40)]}
    datasets.Dataset.from_dict(lines, features=features).to_parquet(str(tmp_path / "reviews.parquet"))
    chosen = {"files": [f"file://{tmp_path}/reviews.parquet"], "format": "parquet"}

    reviews = prepare_toy(chosen, tmp_path / "cache", "SequenceClassification")

    assert reviews.labels == ["neg", "pos"]
    assert reviews.figures.dropped_rows == 1
