"""One attempt in a pod: run file, recipe, termination message."""

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from lmft_api import __version__
from lmft_api.reasons import ExitCode, Reason
from lmft_api.text.shown import one_line
from lmft_api.wire.ranks import RANK, is_rank
from lmft_api.wire.result import Result, encode
from lmft_api.wire.run_file import POD_UID_VARIABLE, RunFile
from lmft_api.wire.versions import NewerFormatError
from lmft_job.attempt.context import RunContext, quiet_libraries
from lmft_job.attempt.ending import Ending, conclude, with_progress
from lmft_job.distributed.diagnosis import doing, peers_error, recorded_collectives, waits_for_others
from lmft_job.distributed.member import PARENT, leave_stacks
from lmft_job.distributed.world import World
from lmft_job.errors import InvalidError, NewerReleaseError
from lmft_job.observers.broadcast import Broadcast
from lmft_job.observers.events import Observer
from lmft_job.observers.reporter import Endpoint, ProgressReporter
from lmft_job.observers.terminal.console import ConsoleObserver
from lmft_job.pod.plan import options_of
from lmft_job.pod.ranks import CACHE, hung_file, rank_folder
from lmft_job.pod.verdict import RankExit
from lmft_job.process.grace import end_in_time
from lmft_job.process.secrets import Scrubber
from lmft_job.process.signals import Interrupt, replace_process

WAITING_SECONDS = 5.0
"""A rank that its watchdog finds waiting for others ends later than the rank that hangs: that one is to be named."""
HUNG_SECONDS = 15.0
"""A rank that hangs waits so long for its pod's first process to end it. When it ends, the others' connections break:
until then they can be asked for their stacks."""


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
    options = options_of(arguments)
    quiet_libraries()
    scrubber = Scrubber(options.secrets)
    sys.stdout, sys.stderr = scrubber.stream(sys.stdout), scrubber.stream(sys.stderr)
    message = _TerminationMessage(options.termination_log, scrubber)
    with ExitStack() as stack:
        observers = _observers(stack, interrupt)
        contexts: list[RunContext] = []

        def run() -> Result:
            context = _context(options, Broadcast(observers), arguments, message, scrubber, interrupt)
            contexts.append(context)
            with context.importing():
                from lmft_job.recipe import run

            try:
                return run(context)
            except Exception as error:
                if not context.world.alone and (lost := peers_error(error)) is not None:
                    raise lost from error
                raise

        ending = conclude(run, interrupt)
        result = with_progress(ending, contexts[0] if contexts else None)
        message.write(result)
        if ending.exit_code == ExitCode.INTERRUPTED:
            # Nobody types a command in a pod: the operator starts the next attempt.
            step = result.checkpoint.step if result.checkpoint else None
            note = f"{result.message}; " + (f"checkpoint {step} is saved" if step else "no checkpoint to keep yet")
            Broadcast(observers).note(note)
    if ending.exit_code != ExitCode.DONE and not is_rank(os.environ):
        # Of several processes the pod's first says why it ended, once.
        for problem in ending.problems:
            print(one_line(problem), file=sys.stderr)
    return ending.exit_code


def _observers(stack: ExitStack, interrupt: Interrupt) -> list[Observer]:
    """What people see; of several ranks the first shows it."""
    if os.environ.get(RANK, "0") != "0":
        return []
    console = stack.enter_context(ConsoleObserver(stopping=lambda: interrupt.requested))
    observers: list[Observer] = [console]
    endpoint = Endpoint.from_environment()
    if endpoint is not None:
        observers.append(stack.enter_context(ProgressReporter(endpoint, say=console.note)))
    return observers


def _context(
    options: argparse.Namespace,
    observer: Observer,
    arguments: list[str],
    message: _TerminationMessage,
    scrubber: Scrubber,
    interrupt: Interrupt,
) -> RunContext:
    world = _world()
    work: Path = options.work if world.alone else rank_folder(options.work, world.rank)
    folder = work / "attempt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def end_now(result: Result, code: int) -> None:
        # The main thread hangs, so only the thread that calls this can report it.
        message.write(result)
        print(one_line(result.message), file=sys.stderr, flush=True)
        os._exit(code)

    def hung(words: str) -> None:
        end_now(Result(reason=Reason.HUNG, message=words), ExitCode.HUNG)

    def say_hung() -> None:
        if PARENT in os.environ:
            hung_file(options.work, world.rank).touch()
            time.sleep(HUNG_SECONDS)

    def restart() -> None:
        replace_process(interrupt, "lmft_job.pod", arguments)

    context = RunContext(
        run=_read_run_file(options.run_file),
        in_pod=True,
        folder=folder,
        cache=Path(os.environ.get(CACHE) or options.work / "cache"),
        secrets=options.secrets,
        observer=observer,
        scrubber=scrubber,
        hung=hung if world.alone else lambda words: _hung_among_ranks(words, message, say_hung, end_now),
        interrupt=interrupt,
        restart=restart if world.alone else lambda: _leave_to_restart(context, end_now),
        pod=os.environ.get(POD_UID_VARIABLE, ""),
        pod_folder=options.work / "shared" if world.local_size > 1 else None,
        world=world,
    )
    if grace := context.grace:
        words = f"stopped by SIGTERM, and did not end within {grace.for_all:g} seconds"
        ending = Ending(ExitCode.INTERRUPTED, Result(reason=Reason.INTERRUPTED, message=words))
        end_in_time(grace, lambda: end_now(with_progress(ending, context), ExitCode.INTERRUPTED))
    return context


def _world() -> World:
    try:
        return World.from_environment(os.environ)
    except ValueError as error:
        raise InvalidError([str(error)]) from error


def _hung_among_ranks(
    words: str, message: _TerminationMessage, say_hung: Callable[[], None], end_now: Callable[[Result, int], None]
) -> None:
    """End a rank that makes no progress: soon if it hangs itself, later if it waits for one that does."""
    for line in recorded_collectives(sys.modules):
        print(f"collective: {one_line(line)}", file=sys.stderr, flush=True)
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    what = f"It was in {doing(frame)}"
    if waits_for_others(frame):
        time.sleep(WAITING_SECONDS)
        leave_stacks()
        end_now(
            Result(reason=Reason.HUNG, message=f"{words}. {what}, where ranks wait for each other"), RankExit.WAITING
        )
    result = Result(reason=Reason.HUNG, message=f"{words}. {what}")
    message.write(result)
    say_hung()
    end_now(result, ExitCode.HUNG)


def _leave_to_restart(context: RunContext, end_now: Callable[[Result, int], None]) -> None:
    """End a rank so that all start again, with the stored adjustment; raises if a stop was requested instead."""
    context.interrupt.check()
    note = context.progress.adjustments[-1] if context.progress.adjustments else "out of accelerator memory"
    ending = Ending(ExitCode.INTERRUPTED, Result(reason=Reason.INTERRUPTED, message=note))
    end_now(with_progress(ending, context), RankExit.RESTART)


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
