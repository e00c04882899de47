"""``lmft init``: look at the data, propose, ask, write."""

import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import typer

from lmft_api.manifest.hints import for_value
from lmft_api.manifest.reader import read_yaml
from lmft_api.manifest.validation import document_problems
from lmft_api.reasons import ExitCode
from lmft_api.tasks import Task
from lmft_api.text.shown import one_line
from lmft_job.cli.init.data import look_at
from lmft_job.cli.init.manifest import name_from, render
from lmft_job.cli.init.model import has_chat_template
from lmft_job.cli.init.proposal import propose
from lmft_job.errors import InvalidError, JobError
from lmft_job.observers.terminal.spinner import waiting


@dataclass(frozen=True)
class Wishes:
    """What the user has chosen already; None leaves it to the data, or to an answer.

    Attributes:
        task: what to learn.
        model: model to start from.
        name: name of the run.
        file: where the manifest is written.
    """

    task: str | None = None
    model: str | None = None
    name: str | None = None
    file: Path | None = None


def write_manifest(data: list[str], wishes: Wishes, *, ask: bool) -> int:
    """Write a manifest for the data; returns the exit code. An existing file is never overwritten."""
    try:
        task = _task(wishes.task)
        with tempfile.TemporaryDirectory(prefix="lmft-init-") as scratch, waiting("reading the first rows"):
            sample = look_at(data, Path(scratch))
        proposal = propose(sample.rows, task)
    except InvalidError as error:
        return _failed(list(error.problems))
    except (JobError, OSError, ValueError) as error:
        return _failed([str(error)])
    print(f"{one_line(sample.title)}: {one_line(proposal.reason)}; task {proposal.task}")
    if sample.left_out:
        left = one_line(sample.left_out)
        print(f"Left out, since a run reads files of one format: {left}. To train on them, name them.")
    model = wishes.model or _answer("Model to start from", proposal.model, ask)
    name = wishes.name or _answer("Name of the run", name_from(sample.stem), ask)
    text = render(name, model, sample, proposal, templated=has_chat_template(model))
    if problems := document_problems(read_yaml(text)):
        return _failed([f"{problem.path}: {problem.message}" for problem in problems])
    target = wishes.file or Path(f"{name}.yaml")
    try:
        # Not write_text: an existing file must stay, and so must one that a link points to.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        return _failed([f"{target} exists; choose another name with --file, or remove it"])
    except OSError as error:
        return _failed([f"{target} cannot be written ({error.strerror})"])
    shown = one_line(str(target))
    typed = one_line(shlex.quote(str(target)))
    print(f"Wrote {shown}. Next: lmft validate {typed}; lmft run {typed}")
    return ExitCode.DONE


def _task(wanted: str | None) -> Task | None:
    if wanted is None:
        return None
    try:
        return Task(wanted)
    except ValueError:
        if (meant := for_value(wanted, Task)) is not None:
            return Task(meant)
        raise InvalidError([f"--task: {wanted!r} is not a task; choose one of {', '.join(Task)}"]) from None


def _answer(question: str, proposed: str, ask: bool) -> str:
    return str(typer.prompt(question, default=proposed)) if ask else proposed


def _failed(problems: list[str]) -> int:
    for problem in problems:
        print(one_line(problem), file=sys.stderr)
    return ExitCode.INVALID
