"""``lmft validate``: every problem of every document, in columns. Imports no training library."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmft_api.manifest.reader import Document, is_foreign, problems_of, read_documents
from lmft_api.manifest.validation import Problem, parse_spec
from lmft_api.reasons import ExitCode
from lmft_api.spec.resolved import resolve
from lmft_api.text.shown import json_text, one_line
from lmft_job import tasks
from lmft_job.adapters.serving import serving_notes
from lmft_job.cli.manifest import (
    folder_of,
    local_paths,
    shown_path,
    title_of,
    with_addresses,
    words,
)


@dataclass(frozen=True)
class _Verdict:
    """What is said of a document, or of a file without any."""

    title: str
    file: str
    document: int | None = None
    skipped: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def words(self) -> str:
        if self.skipped:
            return f"{self.title}: not an LMFineTune, skipped"
        if self.document is None:
            return f"{self.title}: {self.problems[0]}"
        verdict = words(self.title, self.problems) if self.problems else f"{self.title}: valid"
        return "\n".join([verdict, *(f"  note: {one_line(note)}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        problems = [{"line": each.line, "path": each.path, "message": each.message} for each in self.problems]
        place = {"file": self.file, "document": self.document, "title": self.title}
        return place | {"skipped": self.skipped, "valid": not problems, "problems": problems, "notes": self.notes}


def report_problems(paths: Iterable[Path], *, as_json: bool = False) -> int:
    """Print the problems, or that there are none; returns the exit code."""
    verdicts = [verdict for path in paths for verdict in _verdicts(path)]
    if as_json:
        print(json_text([verdict.to_json() for verdict in verdicts]))
    else:
        for verdict in verdicts:
            print(verdict.words())
    return ExitCode.INVALID if any(verdict.problems for verdict in verdicts) else ExitCode.DONE


def _verdicts(path: Path) -> Iterable[_Verdict]:
    documents = list(read_documents(path))
    if not documents:
        yield _Verdict(shown_path(path), str(path), problems=[Problem("", "contains no document")])
    for document in documents:
        title = title_of(path, document, alone=len(documents) == 1)
        if not document.problems and is_foreign(document.content):
            yield _Verdict(title, str(path), document.number, skipped=True)
            continue
        readable = with_addresses(document, folder_of(path))
        problems = problems_of(readable)
        notes = [] if problems else [*_place_notes(document), *notes_on(readable)]
        yield _Verdict(title, str(path), document.number, problems=problems, notes=notes)


def _place_notes(document: Document) -> list[str]:
    """Paths of this machine: ``lmft run`` reads them, and a cluster refuses them."""
    return [
        f'spec.{path[0]}.{path[1]}: "{text}" is a path of this machine; a cluster takes s3:// or file:///folder of a '
        "volume"
        for path, text in local_paths(document.content)[:1]
    ]


def notes_on(document: Document) -> list[str]:
    """What people should know of a valid run: how to serve an adapter that is not merged."""
    settings = resolve(parse_spec(document.content["spec"]))
    if settings.training.adapter is None or settings.output.merge:
        return []
    return serving_notes(settings.training.adapter, heads=tasks.of(settings.task).has_labels)
