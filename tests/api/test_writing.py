"""Writing manifests: what kubectl reads of them is what was meant."""

from pathlib import Path
from typing import Any

import pytest

from lmft_api.manifest.reader import read_text
from lmft_api.manifest.writer import write_documents

SCALARS = (Path(__file__).parent / "manifests/scalars.txt").read_text().splitlines()


@pytest.mark.parametrize(
    "text", sorted({*SCALARS, "1e-4", "5E5", "on", "y", "~", "null", "<<", "=", "a: b", "# a", " "})
)
def test_text_stays_text_whatever_a_parser_could_take_it_for(text: str):
    documents: list[Any] = [{"value": text, text: [text]}, {"name": text}]

    read = [document.content for document in read_text(write_documents(documents))]

    assert read == documents


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -3, 10**15, 0.5, 2e-05, 1e20, [], {}, "", "\n", "a\nb", "\u00e9 \U0001f600"]
)
def test_other_values_stay_what_they_are(value: Any):
    (document,) = read_text(write_documents([{"value": value}]))

    assert document.content == {"value": value}
