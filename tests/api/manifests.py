"""The manifests that must be accepted and rejected, for the tests of validation and of the API server alike."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft_api.manifest.reader import read_documents

FOLDER = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class Case:
    """One document: its text, its content, and for a rejected one where and why (path, part of the message)."""

    name: str
    text: str
    content: Any
    because: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.name


def cases(kind: str) -> Iterator[Case]:
    """All documents below ``accepted`` or ``rejected``; these say ``# because PATH: MESSAGE``."""
    for path in sorted((FOLDER / kind).glob("*.yaml")):
        texts = re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for text, document in zip(texts, read_documents(path), strict=True):
            because = tuple(re.findall(r"^# because ([^ ]+): (.+)$", text, flags=re.MULTILINE))
            yield Case(f"{kind}/{path.stem}-{document.number}", text, document.content, because)
