"""Files of every format, here and in S3, globs, slices and nested fields; what Python carries."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.data_helpers import json_data, prepare_toy, write_lines
from support.s3server import BUCKET, S3Server

from lmft_api.spec import DataFormat
from lmft_job.data.problems import Problems
from lmft_job.data.sources import source
from lmft_job.data.sources.files import read
from lmft_job.data.sources.lines import DataFile
from lmft_job.data.sources.places import find_files
from lmft_job.data.sources.splits import parse
from lmft_job.data.text import fields
from lmft_job.data.text.texts import Texts, TextWriter
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.storage import Store, open_store

TEXTS = [f"row {number} holds words, “quotes” and a\ttab" for number in range(60)]


def rows_of(path: Path, kind: DataFormat) -> list[dict[str, Any]]:
    problems = Problems()
    found = [row for batch in read(DataFile(path, path.name), kind, ["text"], problems) for row in batch]
    assert problems.all() == []
    return found


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": text, "more": 1} for text in TEXTS]
    write_lines(tmp_path / "lines.json", *rows)
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "compact.json").write_text(json.dumps(rows))
    (tmp_path / "plain.text").write_text("\n".join(TEXTS) + "\n")
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["more", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet", row_group_size=7)

    for name in ("lines.json", "array.json", "compact.json", "plain.text", "cells.csv", "table.parquet"):
        found = rows_of(tmp_path / name, DataFormat(name.rpartition(".")[2]))
        assert [row["text"] for row in found] == TEXTS, name


def test_an_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmft_job.data.sources.json_rows.JSON_CHUNK", 16)
    rows = [{"text": "x" * length + "[]{},\"'"} for length in (1, 50, 3, 500)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "empty.json").write_text(" [ ] ")

    assert rows_of(tmp_path / "a.json", DataFormat.JSON) == rows
    assert rows_of(tmp_path / "empty.json", DataFormat.JSON) == []


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\r\n{"text": "two"}')
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")

    assert rows_of(tmp_path / "a.json", DataFormat.JSON) == [{"text": "one"}, {"text": "two"}]
    assert rows_of(tmp_path / "a.txt", DataFormat.TEXT) == [{"text": "one"}, {"text": "two"}]


def test_rows_of_one_file_may_have_different_fields(tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[{"n": 1}, {"n": "x", "text": "words in a row"}] * 30)

    prepared = prepare_toy(json_data(address, blockSize=8), tmp_path / "cache")

    assert prepared.figures.dropped_rows == 30


@pytest.mark.parametrize(
    ("row", "path", "text"),
    [
        ({"text": "words"}, "text", "words"),
        ({"a": {"b": {"c": "deep"}}}, "a.b.c", "deep"),
        ({"answers": {"text": ["one", "two"]}}, "answers.text", "one two"),
        ({"answers": [{"text": "one"}, {"text": "two"}]}, "answers.text", "one two"),
        ({"answers": [{"text": ["one", None]}, {"no": 1}, {"text": []}]}, "answers.text", "one"),
        ({"answers": [{"text": [["a", "b"], ["c"]]}]}, "answers.text", "a b c"),
        ({"answers": {"text": []}}, "answers.text", None),
        ({"answers": None}, "answers.text", None),
        ({"answers": "words"}, "answers.text", None),
        ({"text": " \n"}, "text", None),
    ],
)
def test_a_dotted_path_leads_into_structs_and_lists(row: dict[str, Any], path: str, text: str | None) -> None:
    assert fields.as_text(fields.pick(row, path.split("."))) == text


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[7:]", range(7, 10)),
        ("train[-2:]", range(8, 10)),
        ("train[2:5]", range(2, 5)),
        ("train[:25%]", range(2)),
        ("train[25%:75%]", range(2, 8)),
        ("train[:5000]", range(10)),
        ("train[5:2]", range(0)),
        ("train[:]", range(10)),
    ],
)
def test_slices_are_those_of_datasets(split: str, expected: range) -> None:
    part = parse(split)

    assert part is not None
    assert part.indices(10).tolist() == list(expected)


@pytest.mark.parametrize("split", ["train[:33%]", "train[33%:67%]", "train[1%:]", "train[:-3]", "train[-50%:]"])
@pytest.mark.parametrize("rows", [1, 7, 50, 1066])
def test_slices_round_as_datasets_does(split: str, rows: int) -> None:
    import datasets

    instruction = datasets.ReadInstruction.from_spec(split).to_absolute({"train": rows})[0]
    part = parse(split)

    assert part is not None
    assert part.indices(rows).tolist() == list(range(rows))[slice(instruction.from_, instruction.to)]


def test_slices_of_files_part_training_from_evaluation(tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[{"text": f"row {n} of some words"} for n in range(50)])

    prepared = prepare_toy(
        json_data(address, split="train[:80%]", evalSplit="train[80%:]", blockSize=8), tmp_path / "cache"
    )

    assert (prepared.figures.train_rows, prepared.figures.eval_rows) == (40, 10)


def test_wildcards_name_files_sorted_and_each_once(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "deep/deeper/d.jsonl", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    uris = [f"file://{tmp_path}/b.jsonl", f"file://{tmp_path}/*.jsonl", f"file://{tmp_path}/**/*.jsonl"]

    found = find_files(uris, tmp_path, None, lambda: None)

    assert [str(file.path.relative_to(tmp_path)) for file in found] == [
        "b.jsonl",
        "a.jsonl",
        "deep/c.jsonl",
        "deep/deeper/d.jsonl",
    ]


def test_a_bracket_in_a_path_is_no_wildcard(tmp_path: Path) -> None:
    for name in ("[ab].jsonl", "a.jsonl"):
        (tmp_path / name).write_text("{}\n")

    [found] = find_files([f"file://{tmp_path}/[ab].jsonl"], tmp_path, None, lambda: None)

    assert found.path.name == "[ab].jsonl"


@pytest.mark.parametrize("folder", ["my%20data", "my data"])
def test_a_blank_in_a_path_is_written_as_it_is_or_in_percent(tmp_path: Path, folder: str) -> None:
    (tmp_path / "my data").mkdir()
    write_lines(tmp_path / "my data" / "a.jsonl", *[{"text": f"row {n} of some words"} for n in range(50)])
    address = f"file://{tmp_path}/{folder}/a.jsonl"

    assert prepare_toy(json_data(address, blockSize=8), tmp_path / "cache").figures.train_rows == 40


@pytest.mark.parametrize("written", ["My%20Data/100%25/x%20y.jsonl", "My Data/100%/x y.jsonl", "My Data/*/x*.jsonl"])
def test_a_blank_in_a_key_is_written_as_it_is_or_in_percent(s3: S3Server, tmp_path: Path, written: str) -> None:
    key = f"{tmp_path.name}/My Data/100%/x y.jsonl"
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=b"{}")

    [found] = find_files(
        [f"s3://{BUCKET}/{tmp_path.name}/{written}"], tmp_path, s3.secret(tmp_path / "s"), lambda: None
    )

    assert (found.name, found.path.read_bytes()) == (f"s3://{BUCKET}/{key}", b"{}")
    store = open_store(f"s3://{BUCKET}/{tmp_path.name}/My Data", tmp_path / "s")
    store.put_bytes("%41/a", b"1")
    assert open_store(store.url("%41"), tmp_path / "s").get_bytes("a") == b"1", "its address leads there again"


def test_a_file_that_the_platform_does_not_admit_is_refused_wherever_a_wildcard_or_a_link_leads(tmp_path: Path) -> None:
    for name in ("team-a/x.jsonl", "team-b/x.jsonl", "team-b/y.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "team-a" / "link.jsonl").symlink_to(tmp_path / "team-b" / "y.jsonl")
    admitted = [f"file://{tmp_path}/team-a/*"]

    def named(pattern: str) -> list[str]:
        return [file.path.name for file in find_files([f"file://{tmp_path}/{pattern}"], tmp_path, None, bool, admitted)]

    assert named("team-a/x*") == ["x.jsonl"]
    for pattern in ("team-?/x.jsonl", "**/x.jsonl", "team-b/x.jsonl", "team-a/*", "team-a/link.jsonl"):
        with pytest.raises(
            InvalidError, match=r'files\[0\]: "file://.*/team-b/.*" is not allowed here \(policy.sources'
        ):
            named(pattern)


def test_wildcards_neither_follow_links_in_circles_nor_wait_for_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(".")
    os.mkfifo(tmp_path / "fifo.jsonl")

    [found] = find_files([f"file://{tmp_path}/**/*.jsonl"], tmp_path, None, lambda: None)
    assert found.path == tmp_path / "a.jsonl"
    with pytest.raises(RefusedError, match="is neither a file nor a folder"):
        find_files([f"file://{tmp_path}/fifo.jsonl"], tmp_path, None, lambda: None)
    with pytest.raises(InvalidError, match="%00"):
        find_files([f"file://{tmp_path}/%00.jsonl"], tmp_path, None, lambda: None)


def test_lone_surrogates_and_astral_characters_survive_as_text(tmp_path: Path) -> None:
    with TextWriter(tmp_path / "texts") as writer:
        writer.add(["a\ud800b", None, "😀 ünïcode"])
    import numpy as np

    texts = Texts(tmp_path / "texts")

    assert list(texts.batches(np.array([2, 0]))) == [["😀 ünïcode", "a?b"]]
    assert texts.present(np.arange(3)).tolist() == [0, 2]


def test_texts_come_in_the_order_asked_for_over_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr("lmft_job.data.text.texts.BATCH_CHARACTERS", 50)
    written = [f"text number {number}" for number in range(300)]
    with TextWriter(tmp_path / "texts") as writer:
        writer.add(list(written[:150]))
        writer.add(list(written[150:]))
    order = np.random.default_rng(0).permutation(300)

    read_back = [text for batch in Texts(tmp_path / "texts").batches(order) for text in batch]

    assert read_back == [written[number] for number in order]


def test_a_compressed_file_is_told_from_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"text": "words"}\n'))
    problems = Problems()

    assert list(read(DataFile(tmp_path / "a.jsonl", "a.jsonl"), DataFormat.JSON, [], problems)) == []
    assert problems.all() == ["spec.dataset.files: a.jsonl is compressed (gzip); unpack it"]


def test_a_parquet_file_is_told_from_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"PAR1\x15\x04\x15\xff")
    problems = Problems()

    assert list(read(DataFile(tmp_path / "a.jsonl", "a.jsonl"), DataFormat.JSON, [], problems)) == []
    assert problems.all() == ["spec.dataset.files: a.jsonl is a parquet file; set spec.dataset.format to parquet"]


def test_the_python_docs_are_shaped_like_eli5() -> None:
    docs = source.PythonDocs()

    rows = [row for batch in docs.rows("train", "answers.text", None, Problems()).batches for row in batch]

    assert len(rows) > 70
    assert [row["topic"] for row in rows] == sorted(row["topic"] for row in rows)
    assert all(row["answers"]["text"] and all(part.strip() for part in row["answers"]["text"]) for row in rows)
    assert docs.identity == source.PythonDocs().identity


def test_files_of_s3_are_fetched_by_their_wildcards(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment(s3.reader).items():  # data is only read
        monkeypatch.setenv(name, value)
    client, folder = s3.client(), tmp_path.name
    for part in range(2):
        body = "".join(json.dumps({"text": f"row {n} of part {part}"}) + "\n" for n in range(30))
        client.put_object(Bucket=BUCKET, Key=f"{folder}/part-{part}.jsonl", Body=body.encode())
    client.put_object(Bucket=BUCKET, Key=f"{folder}/notes.txt", Body=b"\xff")
    data = json_data(f"s3://{BUCKET}/{folder}/part-*.jsonl", blockSize=8)

    first = prepare_toy(data, tmp_path / "cache")
    again = prepare_toy(data, tmp_path / "cache")
    client.put_object(Bucket=BUCKET, Key=f"{folder}/part-1.jsonl", Body=body.replace("row 7", "row 8").encode())
    changed = prepare_toy(data, tmp_path / "cache")

    assert first.figures.train_rows + first.figures.eval_rows == 60
    assert (first.reused, again.reused, changed.reused) == (False, True, False)


def test_a_key_that_a_wildcard_finds_has_to_be_admitted_and_is_not_fetched_otherwise(
    s3: S3Server, s3_store: Store, tmp_path: Path
) -> None:
    for team in ("team-a", "team-b"):
        s3_store.put_bytes(f"{tmp_path.name}/{team}/x.jsonl", f'{{"text": "{team}"}}\n'.encode())
    ours, keys = f"s3://{BUCKET}/{tmp_path.name}", s3.secret(tmp_path / "secret")

    with pytest.raises(InvalidError, match=r'team-b/x\.jsonl" is not allowed here \(policy\.sources\.uris\)'):
        find_files([f"{ours}/team-*/x.jsonl"], tmp_path / "all", keys, lambda: None, [f"{ours}/team-a/*"])
    fetched = [path.read_text() for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert [text for text in fetched if "team-b" in text] == []

    [found] = find_files([f"{ours}/team-a/*.jsonl"], tmp_path / "one", keys, lambda: None, [f"{ours}/team-?/*"])
    assert found.name == f"{ours}/team-a/x.jsonl"
