"""``lmft ui`` itself: say the address, open it, answer until Ctrl-C."""

import sys
import webbrowser
from pathlib import Path

from lmft_api.addresses import in_storage
from lmft_api.reasons import ExitCode
from lmft_api.text.shown import one_line
from lmft_job.cli.ui.server import Server
from lmft_job.cli.ui.source import Source, StoredRuns
from lmft_job.errors import InvalidError, JobError


def source_of(place: str) -> Source:
    """The runs below an output's address or folder.

    Raises:
        InvalidError: no such folder.
        RefusedError: an address that cannot be one.
    """
    if in_storage(place):
        return StoredRuns(place.rstrip("/"))
    folder = Path(place).expanduser().absolute()
    if not folder.is_dir():
        raise InvalidError([f"{place}: no such folder; name the one that holds <namespace>/runs, or an s3:// address"])
    return StoredRuns(folder.as_uri())


def serve(source: Source, port: int, *, browser: bool) -> int:
    """Answer until Ctrl-C; returns the exit code."""
    try:
        server = Server(source, port)
    except OSError as error:
        print(f"port {port}: {error.strerror}; choose another with --port", file=sys.stderr)
        return ExitCode.INVALID
    print(f"runs of {one_line(source.where)}: {server.address}", flush=True)
    print("Ctrl-C ends it. Whoever has the address can read the runs.", flush=True)
    if browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return ExitCode.DONE


def serve_place(place: str, port: int, *, browser: bool) -> int:
    """Serve the runs of a folder or bucket; returns the exit code."""
    try:
        source = source_of(place)
    except JobError as error:
        print(one_line(str(error)), file=sys.stderr)
        return ExitCode.INVALID
    return serve(source, port, browser=browser)


def serve_cluster(namespace: str | None, context: str | None, port: int, *, everywhere: bool, browser: bool) -> int:
    """Serve the runs of a cluster; returns the exit code."""
    from lmft import LMFineTuneError
    from lmft_job.cli.ui.source import ClusterRuns

    try:
        source = ClusterRuns(namespace, context, everywhere=everywhere)
    except LMFineTuneError as error:
        print(one_line(str(error)), file=sys.stderr)
        return ExitCode.INVALID
    return serve(source, port, browser=browser)
