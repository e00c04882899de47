"""One attempt in a pod: run file, recipe, termination message."""

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from lmft_api.reasons import ExitCode, Reason
from lmft_api.result import Result, encode
from lmft_api.run import RUN_FILE, SECRETS_FOLDER, TERMINATION_LOG, RunFile
from lmft_job.broadcast import Broadcast
from lmft_job.conclude import conclude, with_progress
from lmft_job.console import ConsoleObserver
from lmft_job.context import RunContext, quiet_libraries
from lmft_job.errors import InvalidError
from lmft_job.interrupt import INTERRUPT
from lmft_job.observer import Observer
from lmft_job.progress import Endpoint, ProgressReporter

_SCRUBBED = "[redacted]"


def run_attempt(arguments: list[str]) -> int:
    """Run the attempt that the run file describes; returns the exit code. A result is written in every ending."""
    options = _options(arguments)
    quiet_libraries()
    with ExitStack() as stack:
        console = stack.enter_context(ConsoleObserver())
        observers: list[Observer] = [console]
        endpoint = Endpoint.from_environment()
        if endpoint is not None:
            observers.append(stack.enter_context(ProgressReporter(endpoint, say=console.note)))
        contexts: list[RunContext] = []

        def run() -> Result:
            context = _context(options, Broadcast(observers), arguments)
            contexts.append(context)
            from lmft_job.recipe import run

            return run(context)

        ending = conclude(run)
        context = contexts[0] if contexts else None
        result = with_progress(ending, context)
        if ending.exit_code == ExitCode.INTERRUPTED:
            # Nobody types a command in a pod: the operator starts the next attempt.
            step = result.checkpoint.step if result.checkpoint else None
            console.note(f"{result.message}; " + (f"checkpoint {step} is saved" if step else "nothing to keep yet"))
    if ending.exit_code != ExitCode.DONE:
        for problem in ending.problems:
            print(_scrub(problem, options.secrets), file=sys.stderr)
    _write_result(result, options)
    return ending.exit_code


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lmft-job", description="Run one attempt of an LMFineTune.")
    parser.add_argument("--run-file", type=Path, default=Path(RUN_FILE))
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    parser.add_argument("--secrets", type=Path, default=Path(SECRETS_FOLDER))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmft")
    return parser.parse_args(arguments)


def _context(options: argparse.Namespace, observer: Observer, arguments: list[str]) -> RunContext:
    work: Path = options.work
    folder = work / "attempt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def hung(message: str) -> None:
        # The main thread hangs, so nothing but this thread can say so.
        _write_result(Result(reason=Reason.HUNG, message=message), options)
        print(message, file=sys.stderr, flush=True)
        os._exit(ExitCode.HUNG)

    def restart() -> None:
        INTERRUPT.check()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "lmft_job.pod", *arguments])  # noqa: S606 - ourselves, anew

    return RunContext(
        run=_read_run_file(options.run_file),
        in_pod=True,
        folder=folder,
        cache=Path(os.environ.get("LMFT_CACHE") or work / "cache"),
        secrets=options.secrets,
        observer=observer,
        hung=hung,
        restart=restart,
    )


def _read_run_file(path: Path) -> RunFile:
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidError(
            [f"{path}: the run file cannot be read ({error.strerror}); the operator mounts it"]
        ) from error
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}" for entry in error.errors()]
        raise InvalidError(problems) from error


def _write_result(result: Result, options: argparse.Namespace) -> None:
    message = _scrub(encode(result).decode(), options.secrets)
    try:
        options.termination_log.write_text(message)
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)


def _scrub(text: str, secrets: Path) -> str:
    """The text without the values of mounted Secrets, should an error of some library have quoted one."""
    if not secrets.is_dir():
        return text
    for path in secrets.glob("*/*"):
        if path.is_file():
            value = path.read_text(errors="ignore").strip()
            if len(value) >= 8 and "://" not in value:
                text = text.replace(value, _SCRUBBED)
    return text
