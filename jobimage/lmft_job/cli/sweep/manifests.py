"""A manifest for every member of a sweep; ``lmft sweep`` prints them."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmft_api.manifest.changes import Change, changed
from lmft_api.manifest.reader import Document, problems_of
from lmft_api.manifest.writer import write_documents
from lmft_api.reasons import ExitCode
from lmft_api.text.shown import one_line
from lmft_job.cli.manifest import Wishes, given, read_one, shown_path, words
from lmft_job.cli.sweep.plan import LABEL, VALUES, Member, members


def planned(
    path: Path, axes: Sequence[Sequence[Change]], wishes: Wishes | None, *, local: bool = True
) -> list[tuple[str, Member, Document]] | None:
    """The sweep's name, and every member with its manifest; None if one is not valid, which is reported on stderr."""
    base = read_one(path, wishes, local=local)
    if base is None:
        return None
    found, wrong = [], False
    name = base.content["metadata"]["name"]
    for member in members(name, axes):
        try:
            content = changed(base.content, member.changes)
        except ValueError as error:
            print(one_line(str(error)), file=sys.stderr)
            return None
        content["metadata"]["name"] = member.name
        document = replace(base, content=content)
        if problems := given(problems_of(document), Wishes(member.changes), "--sweep"):
            print(words(one_line(f"{shown_path(path)}, {member.title}"), problems), file=sys.stderr)
            wrong = True
        found.append((name, member, document))
    return None if wrong else found


def print_sweep(path: Path, axes: Sequence[Sequence[Change]], wishes: Wishes) -> int:
    """Print a manifest for each member, with a label that they share; returns the exit code."""
    found = planned(path, axes, wishes, local=False)
    if found is None:
        return ExitCode.INVALID
    documents = [_labelled(sweep, member, document) for sweep, member, document in found]
    print(write_documents(documents), end="")
    return ExitCode.DONE


def _labelled(sweep: str, member: Member, document: Document) -> dict[str, Any]:
    content: dict[str, Any] = document.content
    metadata = content["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: sweep[:63].rstrip("-.")}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), VALUES: member.title}
    return {key: value for key, value in content.items() if key != "status"}
