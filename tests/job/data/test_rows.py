"""What people's files look like: each is read to the last row, or refused with file, line and what to do."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmft_api.spec import DataFormat
from lmft_job.data.problems import LONGEST, Problems
from lmft_job.data.sources.files import read
from lmft_job.data.sources.lines import DataFile, raw_lines
from lmft_job.data.text.fields import as_text, pick, roots


def read_all(path: Path, kind: str, field: str = "text", *, alone: bool = True) -> tuple[list[Any], list[str]]:
    """Texts of all rows, and what was said."""
    problems = Problems()
    columns = roots(field)
    batches = read(DataFile(path, path.name), DataFormat(kind), columns, problems, alone=alone)
    return [as_text(pick(row, field.split("."))) for batch in batches for row in batch], problems.all()


def objects(*numbers: int) -> list[dict[str, str]]:
    return [{"text": f"row {number}"} for number in numbers]


PRETTY = "\n".join(json.dumps(row, indent=2) for row in objects(1, 2, 3))
SPAM = "v1,v2,,,\nham,row 1,,,\nspam,row 2,,,\nham,row 3,,,\n"
ENDS_RIGHT: dict[str, tuple[str, bytes]] = {
    "arrays one after the other": (
        "json",
        json.dumps(objects(1, 2)).encode() + b"\n" + json.dumps(objects(3)).encode(),
    ),
    "an array, then lines": ("json", json.dumps(objects(1, 2)).encode() + b'\n{"text": "row 3"}\n'),
    "an empty array between": (
        "json",
        b"[]" + json.dumps(objects(1)).encode() + b" [ ] " + json.dumps(objects(2, 3)).encode(),
    ),
    "a comma after the last element": ("json", b'[{"text": "row 1"}, {"text": "row 2"}, {"text": "row 3"},]'),
    "pretty-printed objects": ("json", PRETTY.encode()),
    "pretty-printed, Windows line ends and byte order mark": (
        "json",
        b"\xef\xbb\xbf" + PRETTY.replace("\n", "\r\n").encode(),
    ),
    "one object of several lines, its lists too": (
        "json",
        json.dumps({"text": "row 1", "more": [{"a": 1}, {"b": 2}]}, indent=1).encode()
        + b'\n{"text": "row 2"}{"text":\n"row 3"}',
    ),
    "lines that end in CR": ("json", b'{"text": "row 1"}\r{"text": "row 2"}\r{"text": "row 3"}\r'),
    "a letter of several bytes, escapes": (
        "json",
        b'{"text": "row 1", "\xc3\xa4": 1}\n{"text": "row\\u00202"}\n{"text":"row 3"}',
    ),
    "text that ends in CR": ("text", b"row 1\rrow 2\rrow 3"),
    "text with all three line ends": ("text", b"row 1\rrow 2\r\nrow 3\n"),
    "csv that ends in CR": ("csv", b"text,label\rrow 1,a\rrow 2,b\rrow 3,c\r"),
    "csv with a blank first line": ("csv", b"\n\ntext,label\nrow 1,a\nrow 2,b\nrow 3,c\n"),
    "csv whose first line has commas only": ("csv", b",,\ntext,label,\nrow 1,a,\nrow 2,b,\nrow 3,c,\n"),
    "csv with unnamed columns": ("csv", SPAM.replace("v2", "text").encode()),
    "csv whose lines end in more commas than the first": ("csv", b"text,label\nrow 1,a,,\nrow 2,b\nrow 3,c,\n"),
    "csv with blanks around its names": ("csv", b"label , text \na,row 1\nb,row 2\nc,row 3\n"),
    "csv with a name twice that nobody asked for": ("csv", b"text,score,score\nrow 1,1,2\nrow 2,1,2\nrow 3,1,2\n"),
    "csv with semicolons": ("csv", b"\xef\xbb\xbflabel;text\na;row 1\nb;row 2\nc;row 3\n"),
    "csv with Excel's first line": ("csv", b"sep=;\r\nlabel;text\r\na;row 1\r\nb;row 2\r\nc;row 3\r\n"),
    "csv with tabs": ("csv", b"label\ttext\na, b\trow 1\nb\trow 2\nc\trow 3\n"),
    "csv with quoted names": ("csv", b'"text","label"\n"row 1","a"\n"row 2","b,c"\n"row 3",""\n'),
}


@pytest.mark.parametrize("case", ENDS_RIGHT)
def test_every_row_is_read(case: str, tmp_path: Path) -> None:
    kind, body = ENDS_RIGHT[case]
    (tmp_path / "data").write_bytes(body)
    assert read_all(tmp_path / "data", kind) == (["row 1", "row 2", "row 3"], [])


@pytest.mark.parametrize("case", [case for case, (kind, _) in ENDS_RIGHT.items() if kind == "json"])
def test_pieces_may_end_anywhere(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmft_job.data.sources.json_rows.JSON_CHUNK", 3)
    monkeypatch.setattr("lmft_job.data.sources.lines._CHUNK", 5)
    (tmp_path / "data").write_bytes(ENDS_RIGHT[case][1])
    assert read_all(tmp_path / "data", "json") == (["row 1", "row 2", "row 3"], [])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"
BY_COLUMNS = json.dumps({"text": {str(n): f"row {n}" for n in range(3000)}, "label": {str(n): 0 for n in range(3000)}})
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "array and garbage": (
        "json",
        b'[{"text": "row 1"}]\n\nnonsense',
        "line 3: expected an object or an array, not 'n'",
    ),
    "array of arrays": ("json", b'[[{"text": "row 1"}]]', "line 1: an element is not an object"),
    "array with a mistake in the middle": (
        "json",
        json.dumps(objects(1, 2), indent=1).encode()[:-2] + b',\n{"text" 5}' + b" " * 100 + b"]",
        "line 8 is not JSON (Expecting ':' delimiter)",
    ),
    "an element nested too deeply": (
        "json",
        b'[{"text": "row 1"},\n{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]",
        "line 2 is nested too deeply",
    ),
    "a number of thousands of digits": (
        "json",
        b'[{"text": "a"},\n{"n": ' + b"1" * 5000 + b"}]",
        "line 2 is not JSON (a number has thousands of digits; put it in quotes)",
    ),
    "pretty-printed with commas between": (
        "json",
        PRETTY.replace("}\n", "},\n").encode(),
        "line 3: expected an object or an array, not ','",
    ),
    "rows in one object": (
        "json",
        json.dumps({"version": 1, "data": objects(1, 2, 3)}).encode(),
        "is one object that holds its 3 rows in 'data'; write only these, one object per line: jq -c '.[\"data\"][]'",
    ),
    "rows in one object, pretty-printed": (
        "json",
        json.dumps({"rows": objects(1, 2, 3)}, indent=2).encode(),
        "is one object that holds its 3 rows in 'rows'",
    ),
    "a table by columns": (
        "json",
        b'{"text": ["row 1", "row 2"], "label": [0, 1]}',
        "is a table of 2 rows written by columns",
    ),
    "a table by columns, as pandas writes it": (
        "json",
        BY_COLUMNS.encode(),
        "is a table of 3,000 rows written by columns",
    ),
    "one column": ("json", b'{"text": ["row 1", "row 2"]}', "is a table of 2 rows written by columns"),
    "csv that is JSON": ("csv", b'{"text": "row 1"}\n', "looks like JSON; set spec.dataset.format to json"),
    "csv that is a web page": ("csv", b"<!DOCTYPE html><html>", "is a web page; download the file itself"),
    "csv with the name twice": (
        "csv",
        b"text,text\na,b\n",
        "two columns have the same name, 'text', in the first line",
    ),
    "csv with an open quote": (
        "csv",
        b'text,label\nrow 1,a\n"row 2,b\nrow 3,c\n',
        "line 3 is not CSV (unexpected end of data)",
    ),
    "csv in Latin-1": (
        "csv",
        b"text\ncaf\xe9\n",
        "byte 8 (line 2) is not UTF-8; convert the file, if it is from Windows with: iconv",
    ),
    "UTF-16 without a mark": ("text", "row 1\nrow 2".encode("utf-16-le"), "is not UTF-8 text: every other byte is 0"),
    "UTF-32": ("json", "{}".encode("utf-32"), "is UTF-32; convert it to UTF-8"),
    "a Git LFS pointer": ("json", LFS, "is a Git LFS pointer, not the data itself; fetch that with git lfs pull"),
    "a Git LFS pointer for parquet": ("parquet", LFS, "is a Git LFS pointer"),
    "an empty parquet": ("parquet", b"", "is not a readable parquet file"),
    "an Excel workbook": ("csv", b"PK\x03\x04....", "Excel workbook"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_told_with_its_place_and_what_to_do(case: str, tmp_path: Path) -> None:
    kind, body, told = REFUSED[case]
    (tmp_path / "data").write_bytes(body)
    _, problems = read_all(tmp_path / "data", kind)
    assert len(problems) == 1
    assert problems[0].startswith("spec.dataset.files: data")
    assert told in problems[0]
    assert len(problems[0]) <= LONGEST


def test_shards_of_one_row_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "data").write_text('{"text": ["one", "two"]}')
    assert read_all(tmp_path / "data", "json", alone=False) == (["one two"], [])


@pytest.mark.parametrize(
    "row", [{"answers.text": "words"}, {"answers": {"text": "words"}}, {"answers": [{"text": "words"}]}]
)
def test_a_dot_in_a_columns_name_is_found(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(row) * 1 + "\n" + json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    for kind in ("json", "parquet"):
        assert read_all(tmp_path / f"a.{kind}", kind, "answers.text") == (["words", "words"], [])


def test_parquet_of_any_type_is_read_or_told(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "binary": pa.array([b"words", b"more"]),
        "dictionary": pa.array(["words", "more"]).dictionary_encode(),
        "large": pa.array(["words", "more"], pa.large_string()),
        "view": pa.array(["words", "more"], pa.string_view()),
    }
    for name, values in columns.items():
        pq.write_table(pa.table({"text": values}), tmp_path / f"{name}.parquet")
        assert read_all(tmp_path / f"{name}.parquet", "parquet") == (["words", "more"], []), name
    whole = (tmp_path / "binary.parquet").read_bytes()
    for name, body in {"cut": whole[:-20], "cut in the middle": whole[: len(whole) // 2] + whole[-8:]}.items():
        (tmp_path / name).write_bytes(body)
        assert "is not a readable parquet file" in read_all(tmp_path / name, "parquet")[1][0]
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert "two columns have the same name, 'text'" in read_all(tmp_path / "twice.parquet", "parquet")[1][0]


def test_lines_are_those_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"a\r\r\n\nb\x0bc\x85\r\nd\r" + b"e" * 20 + b"\n\r"
    (tmp_path / "data").write_bytes(body)
    expected = (tmp_path / "data").open(encoding="latin-1", newline="").readlines()
    for size in (1, 2, 3, 7, 100):
        monkeypatch.setattr("lmft_job.data.sources.lines._CHUNK", size)
        assert [line.decode("latin-1") for line in raw_lines(tmp_path / "data")] == expected, size
