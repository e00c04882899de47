"""``lmft validate``: every problem of every document, in columns. Imports no training library."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmft_api import GROUP, KIND
from lmft_api.manifest.reader import Document, read_documents
from lmft_api.manifest.validation import Problem, document_problems, parse_spec
from lmft_api.reasons import ExitCode
from lmft_api.spec.resolved import resolve
from lmft_api.text.shown import one_line
from lmft_job import tasks
from lmft_job.adapters.serving import serving_notes


def report_problems(paths: Iterable[Path]) -> int:
    """Print the problems, or that there are none; returns the exit code."""
    wrong = False
    for path in paths:
        documents = list(read_documents(path))
        if not documents:
            print(f"{path}: contains no document")
            wrong = True
        for document in documents:
            title = title_of(path, document, alone=len(documents) == 1)
            if not document.problems and is_foreign(document.content):
                print(f"{title}: not an LMFineTune, skipped")
                continue
            problems = problems_of(document)
            print(words(title, problems) if problems else f"{title}: valid")
            for note in [] if problems else notes_on(document):
                print(f"  note: {note}")
            wrong = wrong or bool(problems)
    return ExitCode.INVALID if wrong else ExitCode.DONE


def notes_on(document: Document) -> list[str]:
    """What people should know of a valid run: how to serve an adapter that is not merged."""
    settings = resolve(parse_spec(document.content["spec"]))
    if settings.training.adapter is None or settings.output.merge:
        return []
    return serving_notes(settings.training.adapter, heads=tasks.of(settings.task).has_labels)


def is_foreign(content: Any) -> bool:
    """Whether a document is of another kind, such as a Secret beside the run."""
    if not isinstance(content, dict):
        return False
    group, kind = str(content.get("apiVersion") or "").partition("/")[0], content.get("kind")
    return bool(group and kind) and group != GROUP and str(kind).lower() != KIND.lower()


def problems_of(document: Document) -> list[Problem]:
    """Why a document cannot be read, or what is invalid in it, and in which lines, from top to bottom."""
    found = document_problems(document.content) if not document.problems else document.problems
    located = [replace(problem, line=document.line(problem.path)) for problem in found]
    return sorted(located, key=lambda problem: problem.line or 0)


def title_of(path: Path, document: Document, alone: bool) -> str:
    """``team.yaml, document 2, LMFineTune/eli5``."""
    parts = [str(path)] + ([] if alone else [f"document {document.number}"])
    if isinstance(document.content, dict):
        metadata = document.content.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        parts.append(f"{document.content.get('kind') or '?'}/{name or '?'}")
    return one_line(", ".join(parts))


def words(title: str, problems: Iterable[Problem]) -> str:
    """A heading and one line for each problem, lines of the file and paths in columns."""
    rows = [
        (f"line {problem.line}" if problem.line else "", one_line(problem.path), one_line(problem.message))
        for problem in problems
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    count = f"{len(rows)} problem" + ("s" if len(rows) > 1 else "")
    lines = [f"  {line:<{first}}  {path:<{second}}  {message}" for line, path, message in rows]
    return "\n".join([f"{title}: {count}", *(line if first else f"  {line.lstrip()}" for line in lines)])
