"""One attempt in a pod: run file, recipe, termination message."""

import argparse
import os
import shutil
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from lmft_api import __version__
from lmft_api.reasons import ExitCode, Reason
from lmft_api.text.shown import one_line
from lmft_api.wire.result import Result, encode
from lmft_api.wire.run_file import POD_UID_VARIABLE, RUN_FILE, SECRETS_FOLDER, TERMINATION_LOG, RunFile
from lmft_api.wire.versions import NewerFormatError
from lmft_job.attempt.context import RunContext, quiet_libraries
from lmft_job.attempt.ending import Ending, conclude, with_progress
from lmft_job.errors import InvalidError, NewerReleaseError
from lmft_job.observers.broadcast import Broadcast
from lmft_job.observers.console import ConsoleObserver
from lmft_job.observers.events import Observer
from lmft_job.observers.reporter import Endpoint, ProgressReporter
from lmft_job.process.grace import end_in_time
from lmft_job.process.secrets import Scrubber
from lmft_job.process.signals import Interrupt, replace_process


class _TerminationMessage:
    """Writes the termination message once; the first thread to do so wins."""

    def __init__(self, path: Path, scrubber: Scrubber) -> None:
        self._path = path
        self._scrubber = scrubber
        self._written = threading.Lock()

    def write(self, result: Result) -> None:
        if not self._written.acquire(blocking=False):
            return
        try:
            # Scrubbed before it is cut to size, not after, so that the JSON stays valid.
            self._path.write_bytes(encode(self._scrubber.result(result)))
        except OSError as error:
            print(f"the termination message cannot be written: {error}", file=sys.stderr)


def run_attempt(arguments: list[str], interrupt: Interrupt) -> int:
    """Run the attempt that the run file describes; returns the exit code. A result is written for every ending."""
    options = _options(arguments)
    quiet_libraries()
    scrubber = Scrubber(options.secrets)
    sys.stdout, sys.stderr = scrubber.stream(sys.stdout), scrubber.stream(sys.stderr)
    message = _TerminationMessage(options.termination_log, scrubber)
    with ExitStack() as stack:
        console = stack.enter_context(ConsoleObserver(stopping=lambda: interrupt.requested))
        observers: list[Observer] = [console]
        endpoint = Endpoint.from_environment()
        if endpoint is not None:
            observers.append(stack.enter_context(ProgressReporter(endpoint, say=console.note)))
        contexts: list[RunContext] = []

        def run() -> Result:
            context = _context(options, Broadcast(observers), arguments, message, scrubber, interrupt)
            contexts.append(context)
            with context.phase("imports"):
                from lmft_job.recipe import run

            return run(context)

        ending = conclude(run, interrupt)
        result = with_progress(ending, contexts[0] if contexts else None)
        message.write(result)
        if ending.exit_code == ExitCode.INTERRUPTED:
            # Nobody types a command in a pod: the operator starts the next attempt.
            step = result.checkpoint.step if result.checkpoint else None
            console.note(
                f"{result.message}; " + (f"checkpoint {step} is saved" if step else "no checkpoint to keep yet")
            )
    if ending.exit_code != ExitCode.DONE:
        for problem in ending.problems:
            print(one_line(problem), file=sys.stderr)
    return ending.exit_code


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lmft-job", description="Run one attempt of an LMFineTune.")
    parser.add_argument("--run-file", type=Path, default=Path(RUN_FILE))
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    parser.add_argument("--secrets", type=Path, default=Path(SECRETS_FOLDER))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmft")
    return parser.parse_args(arguments)


def _context(
    options: argparse.Namespace,
    observer: Observer,
    arguments: list[str],
    message: _TerminationMessage,
    scrubber: Scrubber,
    interrupt: Interrupt,
) -> RunContext:
    work: Path = options.work
    folder = work / "attempt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def end_now(result: Result, code: ExitCode) -> None:
        # The main thread hangs, so only the thread that calls this can report it.
        message.write(result)
        print(one_line(result.message), file=sys.stderr, flush=True)
        os._exit(code)

    context = RunContext(
        run=_read_run_file(options.run_file),
        in_pod=True,
        folder=folder,
        cache=Path(os.environ.get("LMFT_CACHE") or work / "cache"),
        secrets=options.secrets,
        observer=observer,
        scrubber=scrubber,
        hung=lambda message: end_now(Result(reason=Reason.HUNG, message=message), ExitCode.HUNG),
        interrupt=interrupt,
        restart=lambda: replace_process(interrupt, "lmft_job.pod", arguments),
        pod=os.environ.get(POD_UID_VARIABLE, ""),
    )
    if grace := context.grace:
        words = f"stopped by SIGTERM, and did not end within {grace.for_all:g} seconds"
        ending = Ending(ExitCode.INTERRUPTED, Result(reason=Reason.INTERRUPTED, message=words))
        end_in_time(grace, lambda: end_now(with_progress(ending, context), ExitCode.INTERRUPTED))
    return context


def _read_run_file(path: Path) -> RunFile:
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidError(
            [f"{path}: the run file cannot be read ({error.strerror}); the operator mounts it"]
        ) from error
    except NewerFormatError as error:
        raise NewerReleaseError(f"{error}: spec.podTemplate.image, or job.image of the chart") from error
    except ValidationError as error:
        raise InvalidError([_problem(entry["type"], entry["loc"], entry["msg"]) for entry in error.errors()]) from error


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place))
    if kind != "extra_forbidden":
        return f"{name}: {message}"
    return f"{name}: release {__version__}, of which this job image is, does not know it; take one of the operator's"
