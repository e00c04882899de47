"""Files that nobody thought of: real ones, changed at random. Nothing but words for people leaves a reader.

Where a reader of the standard library or of Arrow accepts a changed file too, it must find the same rows.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.limits import within_seconds

from lmft_api.spec import DataFormat
from lmft_job.data.labels import number_labels
from lmft_job.data.problems import Problems
from lmft_job.data.sources.files import label_names, read
from lmft_job.data.sources.json_rows import Repeats
from lmft_job.data.sources.lines import DataFile
from lmft_job.data.sources.source import SourceRows
from lmft_job.data.text.corpus import TextReader, collect

ROWS: list[dict[str, Any]] = [
    {"text": "The river, “wide” and\tcold", "label": "a", "more": {"n": [1, None, 2.5]}},
    {"text": "caf\u00e9\nnext line", "label": "b", "more": {"n": []}},
    {"text": "", "label": None, "more": {"n": [1e300]}},
    {"text": 'quotes "twice"', "label": "a", "more": {"n": [True]}},
] * 3


def as_csv() -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["text", "label"])
    writer.writerows([row["text"], row["label"]] for row in ROWS)
    return out.getvalue().encode()


def as_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"text": row["text"], "label": row["label"]} for row in ROWS]), out)
    return out.getvalue()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
REAL: dict[str, tuple[str, bytes]] = {
    "lines": ("json", LINES),
    "array": ("json", json.dumps(ROWS).encode()),
    "pretty": ("json", "\n".join(json.dumps(row, indent=2) for row in ROWS).encode()),
    "text": ("text", LINES),
    "csv": ("csv", as_csv()),
    "parquet": ("parquet", as_parquet()),
}
PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b'"',
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"null",
    b"NaN",
    b";",
]
PIECES += [b'{"text": "x"}', b"[" * 300, b"\\ud800", b"1" * 50, b"text,label\n", b":", b" "]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(PIECES), st.binary(max_size=4))),
    min_size=1,
    max_size=4,
)


def changed(body: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Some bytes cut out and others put there."""
    for place, cut, piece in changes:
        at = int(place * len(body))
        body = body[:at] + piece + body[at + cut :]
    return body


def independent(kind: str, body: bytes) -> int | None:
    """Rows that another reader finds; None where it refuses the file or reads another dialect."""
    try:
        text = body.decode("utf-8-sig")
        if kind == "text":
            return len(io.StringIO(text, newline=None).readlines())
        if kind == "csv":
            rows = [cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if cells]
            header = next((cells for cells in rows if any(cell.strip() for cell in cells)), [])
            same = all(len(cells) == len(header) for cells in rows)
            return len(rows) - rows.index(header) - 1 if header and same else None
        if kind == "json":
            return json_values(text)
    except (ValueError, csv.Error, RecursionError):
        return None
    return None


def json_values(text: str) -> int | None:
    """Objects of values one after the other, by the standard library's decoder on the whole text."""
    decoder, at, rows = json.JSONDecoder(), 0, 0
    while rest := text[at:].lstrip(" \t\r\n"):
        value, end = decoder.raw_decode(rest)
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in found):
            return None
        rows, at = rows + len(found), len(text) - len(rest) + end
    return rows


def arrow(path: Path) -> int | None:
    try:
        return len(pq.read_table(path, columns=["text", "label"]).to_pylist())
    except (pa.ArrowException, OSError, ValueError):
        return None


def letters(body: bytes) -> list[list[tuple[float, int, bytes]]]:
    """Changes of one letter each, within a text."""
    at = body.index(b"cold")
    return [[((at + place + 0.5) / len(body), 1, letter.encode())] for place, letter in enumerate("COLD")]


@pytest.mark.parametrize("name", REAL)
def test_a_changed_file_is_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    kind, body = REAL[name]
    path = tmp_path / "data"
    agreed = 0

    @settings(
        max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(CHANGES)
    def look(changes: list[tuple[float, int, bytes]]) -> None:
        nonlocal agreed
        path.write_bytes(changed(body, changes))
        file, problems = DataFile(path, "data"), Problems()
        if kind == "parquet":
            label_names(file, "label")
        batches = read(file, DataFormat(kind), ["text", "label"], problems, alone=True)
        corpus = collect(
            SourceRows(batches), tmp_path / "texts", TextReader("text", problems), "label", problems, lambda: None
        )
        told = problems.all()
        assert all(problem.startswith("spec.dataset.") and len(problem) <= 1000 for problem in told)
        if not told:
            number_labels([label for label in corpus.labels if label is not None], [], None, "label", problems)
        wrong = [problem for problem in told if problem.startswith("spec.dataset.files")]
        rows = arrow(path) if kind == "parquet" else independent(kind, path.read_bytes())
        if rows is not None and not wrong:
            agreed += 1
            assert len(corpus.texts) == rows

    # How many of the drawn changes leave a file that both take depends on what hypothesis draws; of these all do.
    for changes in ([], *([] if kind == "parquet" else letters(body))):
        look = example(changes)(look)
    look()
    assert agreed >= (5 if kind != "parquet" else 1), "changes that both take are part of it"


def test_unchanged_every_row_is_there(tmp_path: Path) -> None:
    for name, (kind, body) in REAL.items():
        path = tmp_path / name
        path.write_bytes(body)
        problems = Problems()
        rows = [
            row for batch in read(DataFile(path, name), DataFormat(kind), ["text", "label"], problems) for row in batch
        ]
        assert problems.all() == []
        if kind != "text":
            assert [row["text"] or "" for row in rows] == [row["text"] for row in ROWS], name


def test_a_row_of_very_many_fields_with_one_given_twice_takes_no_more_than_its_size() -> None:
    row = '{"text": "a", ' + "".join(f'"{number}": 1, ' for number in range(100_000)) + '"text": "b"}'

    with within_seconds(60):  # by the square of the fields it would take hours
        assert Repeats(["text"]).find(row) == "text"
