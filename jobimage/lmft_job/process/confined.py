"""Work in a child process that can read only what it needs.

The child is forked from this process, which has the libraries in memory: a new Python would import them again, for
seconds. Only the forking thread exists in the child, which therefore exits without cleaning up.
"""

import errno
import os
import resource
import signal
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmft_api
import lmft_job
from lmft_job.process import landlock

PATIENCE_SECONDS = 600.0
MEMORY = 4 << 30
_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
)
_WAIT_SECONDS = 0.01
_ERROR_FILE = "error.txt"
_NO_SPACE = os.strerror(errno.ENOSPC)
_FULL_CODE = 28
"""Exit code of a child that had no space left for its results."""


class ConfinedError(Exception):
    """The work in the child failed; the message is that of its error."""


class NoAnswerError(Exception):
    """The child neither answered nor ended in time, or was killed."""


def run_confined(
    work: Callable[[], None],
    source: Path,
    results: Path,
    patience: float = PATIENCE_SECONDS,
    memory: int = MEMORY,
) -> bool:
    """Run work that may read the source folder and the interpreter's own files, and write to the results folder.

    Args:
        work: leaves its results as files in the results folder. Its exceptions are raised here as text.
        source: folder that it may read.
        results: empty folder that it may write to.
        patience: seconds until the child is killed.
        memory: bytes that it may take beyond what this process holds.

    Returns:
        Whether the kernel enforced the restriction to these folders; False without Landlock.

    Raises:
        ConfinedError: the work raised, crashed, or took too much memory.
        NoAnswerError: it took too long, or was killed.
        OSError: there is no space left for the results.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    restricted = landlock.version() > 0
    child = os.fork()
    if child == 0:
        _be_child(work, source, results, memory)
    with _ended(child):
        until = time.monotonic() + patience
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > until:
                raise NoAnswerError(f"did not end within {patience:g} seconds")
            time.sleep(_WAIT_SECONDS)
    code = os.waitstatus_to_exitcode(status)
    error = results / _ERROR_FILE
    if error.is_file():
        words = error.read_text(encoding="utf-8", errors="replace")
        error.unlink()
        raise ConfinedError(words)
    if -code in (signal.SIGABRT, signal.SIGSEGV):
        # Rust aborts where it gets no memory.
        raise ConfinedError(f"reading it ended with signal {-code}, perhaps for want of {memory >> 20:,} MiB of memory")
    if code == _FULL_CODE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(results))
    if code != 0:
        raise NoAnswerError(f"ended with {'signal' if code < 0 else 'code'} {abs(code)}")
    return restricted


def readable() -> Sequence[Path]:
    """Files that the interpreter itself reads: its library, the packages, and shared libraries."""
    places = sysconfig.get_paths()
    ours = [Path(package.__file__).parent for package in (lmft_api, lmft_job) if package.__file__]
    own = [Path(places[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*own, *ours, *map(Path, _LIBRARIES)]


def _be_child(work: Callable[[], None], source: Path, results: Path, memory: int) -> None:
    """Runs the work in the child; never returns."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        # A cache below /tmp, keyed by the path of what is read: it may belong to others, and must not be written.
        os.environ["TIKTOKEN_CACHE_DIR"] = ""
        _limit_memory(memory)
        landlock.restrict([*readable(), source], [results])
        work()
        code = 0
    except MemoryError:
        (results / _ERROR_FILE).write_text(f"it takes more than {memory >> 20:,} MiB of memory", encoding="utf-8")
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is not an Exception; report it and exit
        words = f"{type(error).__name__}: {error}" if not str(error).strip() else str(error)
        # Rust's libraries have no OSError: only their words tell.
        if _NO_SPACE in words or not _leave_words(results, words):
            code = _FULL_CODE
    finally:
        os._exit(code)


def _leave_words(results: Path, words: str) -> bool:
    """Whether there was space for them."""
    try:
        (results / _ERROR_FILE).write_text(words[:4000], encoding="utf-8", errors="replace")
    except OSError:
        (results / _ERROR_FILE).unlink(missing_ok=True)
        return False
    return True


@contextmanager
def memory_within(more: int) -> Iterator[None]:
    """Within it this process gets a MemoryError where it would take so many bytes more, unless it is limited already.

    For short work on what strangers wrote: all threads share the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        yield
        return
    _limit_memory(more)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _limit_memory(more: int) -> None:
    """Without /proc, as on macOS, there is no limit."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return
    held = sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + more
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@contextmanager
def _ended(child: int) -> Iterator[None]:
    """Ends the child, whatever ends the wait."""
    try:
        yield
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
