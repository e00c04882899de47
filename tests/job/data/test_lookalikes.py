"""Files given as plain text that are something else: refused where that is certain, else a remark says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_helpers import prepare_toy

from lmft_job.data.sources.lines import DataFile
from lmft_job.data.text.lookalikes import LooksLikeRowsError, look_alike
from lmft_job.errors import InvalidError
from lmft_job.report.remarks import data_remarks

TURNS = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
SHARED = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]
PROSE = "The river, they say, is wide.\nIt is cold; and old.\nNobody knows, or tells.\n"


def written(tmp_path: Path, body: str, name: str = "data.txt") -> DataFile:
    path = tmp_path / name
    path.write_bytes(body.encode())
    return DataFile(path, name)


def rows(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values * 20)


REFUSED = {
    "messages": (rows({"messages": TURNS}), "contains conversations"),
    "messages, one line": (json.dumps({"messages": TURNS}), "contains conversations"),
    "ShareGPT": (rows({"id": 1, "conversations": SHARED}), "contains conversations"),
    "bare lists of turns": (rows(TURNS), "contains conversations"),
    "an array in one line": (json.dumps([{"messages": TURNS}] * 5), "contains conversations"),
    "texts": (rows({"text": "a", "label": 1}), "set spec.dataset.format to json"),
    "texts, CRLF and a byte order mark": ("\ufeff" + rows({"text": "a"}).replace("\n", "\r\n"), "set spec.dataset"),
    "an array of texts in one line": (json.dumps([{"text": "a"}] * 5), "set spec.dataset.format to json"),
}
NOTED = {
    "objects": (rows({"level": "info", "message": "up"}), "JSON objects with the fields level, message"),
    "one object over lines": (json.dumps({"a": {"b": 1}, "c": 2}, indent=1), "JSON"),
    "an array over lines": (json.dumps([{"text": "a"}] * 5, indent=1), "JSON"),
    "a notebook": (json.dumps({"cells": [], "nbformat": 4}, indent=1), "a Jupyter notebook (JSON)"),
    "csv": ("text,label\n" + 'a river,1\n"b, c",2\n' * 9, "a table with the columns text, label, between commas"),
    "tsv": ("id\ttext\n" + "1\ta, b\n" * 9, "a table with the columns id, text, between tabs"),
    "semicolons": ('"id";"text"\n' + "1;a\n" * 9, "a table with the columns id, text, between semicolons"),
    "html": ("<!DOCTYPE html>\n<html><body>a</body></html>\n", "HTML"),
    "html after blank lines": ("\n\n  <html lang='en'>\n", "HTML"),
    "xml": ('<?xml version="1.0"?>\n<a/>\n', "XML"),
    "rtf": ("{\\rtf1\\ansi a}\n", "RTF"),
}
PLAIN = {
    "prose": PROSE,
    "one line": "a, b",
    "empty": "",
    "commas in every line": "wide,cold and old\nriver,hill and ship\nhouse,garden and sea\n",
    "python": 'import a, b\n\n{"text": 1}\nprint([1, 2])\n',
    "a line of JSON among others": PROSE + rows({"text": "a"}),
    "numbers": "1\n2\n3\n",
    "quotes": '"Who?" she said.\n"I," he said.\n[He left.]\n',
    "braces": "{a set}\n[a list]\n{another}\n",
    "dialogue": "A: yes\nB: no\nA: well\n",
    "markdown": "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "latex": "\\documentclass{article}\n\\begin{document}\n",
    "words a line": "river,hill\nriver\nhill\n",
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_rows_for_certain_are_refused(case: str, tmp_path: Path) -> None:
    body, words = REFUSED[case]
    with pytest.raises(LooksLikeRowsError, match=words):
        look_alike(written(tmp_path, body))


@pytest.mark.parametrize("case", NOTED)
def test_what_may_be_meant_is_named(case: str, tmp_path: Path) -> None:
    body, what = NOTED[case]
    assert look_alike(written(tmp_path, body)) == what


@pytest.mark.parametrize("case", PLAIN)
def test_text_is_text(case: str, tmp_path: Path) -> None:
    assert look_alike(written(tmp_path, PLAIN[case])) is None


def test_a_large_file_is_judged_by_its_beginning(tmp_path: Path) -> None:
    with pytest.raises(LooksLikeRowsError):
        look_alike(written(tmp_path, rows({"text": "a " * 9000})))
    assert look_alike(written(tmp_path, "a " * 400_000)) is None
    assert look_alike(written(tmp_path, "[" * 400_000)) is None


def test_what_is_refused_is_told_once_for_each_file(tmp_path: Path) -> None:
    files = [
        written(tmp_path, body, name)
        for name, body in (("a.txt", rows({"messages": TURNS})), ("b.txt", PROSE * 30), ("c.txt", rows(TURNS)))
    ]
    dataset = {"files": [file.path.as_uri() for file in files], "format": "text", "blockSize": 8}

    with pytest.raises(InvalidError) as caught:
        prepare_toy(dataset, tmp_path / "cache")

    assert [problem.split(" contains")[0] for problem in caught.value.problems] == [
        f"spec.dataset.files: {files[0].path.as_uri()}", f"spec.dataset.files: {files[2].path.as_uri()}",
    ]  # fmt: skip
    assert "spec.dataset.messagesField" in caught.value.problems[0]


def test_what_is_trained_on_as_it_stands_is_said_again_when_it_is_reused(tmp_path: Path) -> None:
    file = written(tmp_path, rows({"level": "info", "message": "the river is wide"}))
    dataset = {"files": [file.path.as_uri()], "format": "text", "blockSize": 8}
    for _ in range(2):
        prepared = prepare_toy(dataset, tmp_path / "cache")
        said = data_remarks(prepared.figures)[0]
        assert "look like JSON objects with the fields level, message" in said
        assert "set spec.dataset.format" in said
    assert prepared.reused
