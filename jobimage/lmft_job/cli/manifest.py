"""Manifests that a command line names: ``-`` is standard input, ``--set`` changes fields, paths are of this machine."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lmft_api.addresses import WILDCARDS
from lmft_api.manifest.changes import Change, changed, parse_change
from lmft_api.manifest.reader import STDIN, Document, is_foreign, problems_of, read_documents
from lmft_api.manifest.validation import Problem, parse_spec
from lmft_api.spec import LMFineTuneSpec, Output
from lmft_api.text.shown import one_line
from lmft_api.text.wording import shorten

NAMESPACE = "default"
"""Namespace of the runs of this machine."""
_UNESCAPED = "/ +,=@~:()" + WILDCARDS
_PATHS = ("./", "../", "~/", "/")


@dataclass(frozen=True)
class Wishes:
    """What a command line wants otherwise than the manifest: ``--set`` and ``--name``."""

    changes: Sequence[Change] = ()
    name: str | None = None

    @classmethod
    def parse(cls, texts: Sequence[str], name: str | None = None) -> "Wishes":
        """From the words of the command line.

        Raises:
            ValueError: one of them is not FIELD=VALUE.
        """
        return cls([parse_change(text) for text in texts], name)


def read_one(path: Path, wishes: Wishes | None = None, *, local: bool = True) -> Document | None:
    """The one LMFineTune of a file, valid; None if there is none or it is invalid, which is reported on stderr.

    ``local``: paths become addresses of this machine; otherwise they are invalid, as on a cluster.
    """
    documents = list(read_documents(path))
    ours = [document for document in documents if document.problems or not is_foreign(document.content)]
    wrong = False
    if len(ours) == 1 and not ours[0].problems:
        try:
            own = with_addresses(ours[0], folder_of(path)) if local else ours[0]
            ours = [_as_wished(own, wishes or Wishes(), local)]
        except ValueError as error:
            print(one_line(str(error)), file=sys.stderr)
            return None
    for document in ours:
        if problems := given(problems_of(document), wishes or Wishes()):
            print(words(title_of(path, document, alone=len(documents) == 1), problems), file=sys.stderr)
            wrong = True
    if wrong:
        return None
    if len(ours) != 1:
        print(f"{shown_path(path)}: must contain exactly one LMFineTune, not {len(ours)}", file=sys.stderr)
        return None
    if not ours[0].content["metadata"].get("name"):
        print(
            f"{shown_path(path)}: metadata.name is required to run here; it names the folder. Set it, or --name",
            file=sys.stderr,
        )
        return None
    return ours[0]


def given(problems: Iterable[Problem], wishes: Wishes, option: str = "--set") -> list[Problem]:
    """The problems of a changed manifest: what the command line gave stands in no line of the file."""
    options = {f"spec.{change.field}": option for change in wishes.changes}
    if wishes.name is not None:
        options["metadata.name"] = "--name"

    def placed(problem: Problem) -> Problem:
        for field, named in options.items():
            if re.match(rf"{re.escape(field)}(?![^.\[])", problem.path):
                return replace(problem, line=None, message=f"{problem.message} (given with {named})")
        return problem

    return [placed(problem) for problem in problems]


def read_run(path: Path, wishes: Wishes | None = None) -> tuple[str, LMFineTuneSpec] | None:
    """Name and spec of the one run in a file; None if there is none or it is invalid, which is reported on stderr."""
    document = read_one(path, wishes)
    return None if document is None else run_of(document)


def run_of(document: Document) -> tuple[str, LMFineTuneSpec]:
    """Name and spec of a valid document."""
    return document.content["metadata"]["name"], parse_spec(document.content["spec"])


def _as_wished(document: Document, wishes: Wishes, local: bool) -> Document:
    if not isinstance(document.content, dict):
        return document
    content = changed(document.content, wishes.changes)
    if wishes.name is not None:
        metadata = content.get("metadata")
        content["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "name": wishes.name}
    document = replace(document, content=content)
    return with_addresses(document, Path.cwd()) if local else document


def with_addresses(document: Document, folder: Path) -> Document:
    """The document with addresses in place of paths of this machine, which are relative to a folder."""
    if not local_paths(document.content):
        return document
    changes = [Change(path, address(folder / Path(text).expanduser())) for path, text in local_paths(document.content)]
    return replace(document, content=changed(document.content, changes))


def local_paths(content: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """The fields of a manifest that hold a path of this machine instead of an address, with the path.

    In ``dataset.files`` and ``output.uri`` that is everything without a scheme. A model's name is a hub id unless it
    begins as paths do: ``./my-model``, ``~/models/gpt2``, ``/models/gpt2``.
    """
    spec = content.get("spec") if isinstance(content, dict) else None
    files = _at(spec, "dataset", "files")
    found: list[tuple[tuple[str | int, ...], Any]] = [
        (("dataset", "files", index), entry) for index, entry in enumerate(files if isinstance(files, list) else ())
    ]
    found.append((("output", "uri"), _at(spec, "output", "uri")))
    anything = [(path, text) for path, text in found if isinstance(text, str) and text and "://" not in text]
    models = [(path, _at(spec, *path)) for path in (("model", "name"), ("model", "tokenizer", "name"))]
    return anything + [(path, text) for path, text in models if isinstance(text, str) and text.startswith(_PATHS)]


def _at(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def address(path: Path) -> str:
    """A path of this machine as an address; wildcards stay."""
    return f"file://{quote(os.path.abspath(path), safe=_UNESCAPED)}"  # data files may not lead outside by '..'


def folder_of(path: Path) -> Path:
    """The folder to which the paths of a manifest are relative: its own, or the current one for standard input."""
    return Path.cwd() if path == STDIN else path.absolute().parent


def with_output(spec: LMFineTuneSpec, output: str | None) -> LMFineTuneSpec:
    """The spec with an output: the one given, a folder or a URI, else its own, else ./runs."""
    if output is None and spec.output is not None and spec.output.uri is not None:
        return spec
    wanted = output or "runs"
    uri = wanted if "://" in wanted else Path(wanted).absolute().as_uri()
    return spec.model_copy(update={"output": (spec.output or Output()).model_copy(update={"uri": uri})})


def shown_path(path: Path) -> str:
    """The file, for people."""
    return "standard input" if path == STDIN else one_line(str(path))


def title_of(path: Path, document: Document, alone: bool) -> str:
    """``team.yaml, document 2, LMFineTune/eli5``."""
    parts = [shown_path(path)] + ([] if alone else [f"document {document.number}"])
    if isinstance(document.content, dict):
        metadata = document.content.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        kind = shorten(str(document.content.get("kind") or "?"), 100)
        parts.append(f"{kind}/{shorten(str(name or '?'), 253)}")
    return one_line(", ".join(parts))


def words(title: str, problems: Sequence[Problem]) -> str:
    """A heading and one line for each problem, lines of the file and paths in columns."""
    rows = [
        (f"line {problem.line}" if problem.line else "", one_line(problem.path), one_line(problem.message))
        for problem in problems
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    count = f"{len(rows)} problem" + ("s" if len(rows) > 1 else "")
    lines = [f"  {line:<{first}}  {path:<{second}}  {message}" for line, path, message in rows]
    return "\n".join([f"{title}: {count}", *(line if first else f"  {line.lstrip()}" for line in lines)])
