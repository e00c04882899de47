"""A run on a laptop: manifest in, folder out. The same recipe that a pod runs."""

import fcntl
import hashlib
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from lmft_api.reasons import ExitCode
from lmft_api.spec import LMFineTuneSpec
from lmft_api.text.shown import one_line, shown
from lmft_api.wire.layout import REPORT
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext, quiet_libraries
from lmft_job.attempt.ending import conclude
from lmft_job.cli.manifest import NAMESPACE, Wishes, read_run, shown_path, with_output
from lmft_job.observers.terminal.console import ConsoleObserver
from lmft_job.process.signals import Interrupt, replace_process
from lmft_job.storage import Store

DEMO = "demo.yaml"
PROGRAM = "LMFT_PROGRAM"
"""Variable that passes the original command line to the process that replaces this one."""


@dataclass(frozen=True)
class LocalOptions:
    """Options of ``lmft run``.

    Attributes:
        output: folder or URI; None takes the manifest's, else ./runs.
        overwrite: start from scratch if a run of this name exists.
        allow_user_code: let callbacks and trainerClass run.
        allow_remote_code: let trustRemoteCode take effect.
        again: the command that resumes the run after a stop.
        wishes: changes to the manifest.
    """

    output: str | None = None
    overwrite: bool = False
    allow_user_code: bool = False
    allow_remote_code: bool = False
    again: str = "lmft run"
    wishes: Wishes | None = None


def run_demo(options: LocalOptions, interrupt: Interrupt) -> int:
    """The quickstart, packaged; a finished demo starts from scratch, an interrupted one resumes."""
    with as_file(files("lmft_job") / DEMO) as manifest:
        return run_manifest(manifest, options, interrupt, again_when_done=True)


def run_manifest(path: Path, options: LocalOptions, interrupt: Interrupt, *, again_when_done: bool = False) -> int:
    """Run the one LMFineTune of a file; returns the exit code. ``interrupt``: requests to stop."""
    found = read_run(path, options.wishes)
    if found is None:
        return ExitCode.INVALID
    name, spec = found
    spec = with_output(spec, options.output)
    return run_spec(shown_path(path), name, spec, options, interrupt, again_when_done=again_when_done)


def run_spec(
    title: str,
    name: str,
    spec: LMFineTuneSpec,
    options: LocalOptions,
    interrupt: Interrupt,
    *,
    again_when_done: bool = False,
) -> int:
    """Run a spec that has an output; returns the exit code. ``title`` names it in messages."""
    if options.allow_user_code:
        # The user's modules are in the current folder, as with `python script.py`.
        sys.path.insert(0, str(Path.cwd()))
    quiet_libraries()
    cache = Path(os.environ.get("LMFT_CACHE") or Path.home() / ".cache" / "lmfinetune")
    output = spec.output.uri if spec.output else ""
    folder = cache / "work" / f"{name[:100]}-{hashlib.sha256(f'{output}/{name}'.encode()).hexdigest()[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        mine = folder.with_name(f"{folder.name}.lock").open("w")
    except OSError as error:
        print(f"{cache}: cannot be used as cache ({error.strerror}); set LMFT_CACHE to another folder", file=sys.stderr)
        return ExitCode.REFUSED
    with mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"{title}: the run {name} is already running in another process; wait until it ends, or stop it",
                file=sys.stderr,
            )
            return ExitCode.INVALID
        return _run_alone(title, name, spec, options, interrupt, cache, folder, again_when_done)


def _run_alone(
    title: str,
    name: str,
    spec: LMFineTuneSpec,
    options: LocalOptions,
    interrupt: Interrupt,
    cache: Path,
    folder: Path,
    again_when_done: bool,
) -> int:
    """Run it; no other process runs the same name and output at this time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with ConsoleObserver(stopping=lambda: interrupt.requested) as console:
        if spec.resume_from is not None:
            console.note("spec.resumeFrom takes effect on a cluster only; this run starts from spec.model")
        context = RunContext(
            run=RunFile(
                name=name,
                namespace=NAMESPACE,
                uid="local",
                allow_user_code=options.allow_user_code,
                allow_remote_code=options.allow_remote_code,
                spec=spec,
            ),
            in_pod=False,
            folder=folder,
            cache=cache,
            secrets=None,
            observer=console,
            hung=_hung,
            restart=lambda: _restart(interrupt),
            overwrite=options.overwrite,
            interrupt=interrupt,
        )

        def run():  # type: ignore[no-untyped-def]
            context.overwrite = context.overwrite or (again_when_done and _is_finished(context.run_store()))
            with context.importing():
                from lmft_job.recipe import run

            return run(context)

        ending = conclude(run, interrupt)
        if stopped := ending.exit_code == ExitCode.INTERRUPTED and interrupt.requested:
            saved = context.progress.checkpoint
            console.interrupted(saved.step if saved else None, options.again)
    if ending.exit_code != ExitCode.DONE and not stopped:
        if len(ending.problems) > 1:
            print(f"{title}: {len(ending.problems)} problems", file=sys.stderr)
        for problem in map(one_line, ending.problems):
            print(f"  {problem}" if len(ending.problems) > 1 else problem, file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    return int(ending.exit_code)


def _is_finished(store: Store) -> bool:
    return store.get_bytes(REPORT) is not None


def _hung(message: str) -> None:
    print(shown(message), file=sys.stderr, flush=True)
    os._exit(ExitCode.HUNG)


def typed_program() -> list[str]:
    """The program as typed: ``lmft`` if the shell finds this one by that name, else its path or module."""
    if typed := os.environ.get(PROGRAM):
        return shlex.split(typed)
    program = Path(sys.argv[0])
    if program.suffix == ".py":
        return [sys.orig_argv[0], "-m", "lmft_job.cli"]
    found = shutil.which(program.name)
    return [program.name if found is not None and Path(found).absolute() == program.absolute() else sys.argv[0]]


def _restart(interrupt: Interrupt) -> None:
    os.environ[PROGRAM] = shlex.join(typed_program())
    arguments = [argument for argument in sys.argv[1:] if argument != "--overwrite"]
    replace_process(interrupt, "lmft_job.cli", arguments)
