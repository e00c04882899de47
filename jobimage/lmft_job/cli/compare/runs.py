"""The reports of finished runs, wherever they are stored."""

from pathlib import Path

from pydantic import ValidationError

from lmft_api.addresses import in_storage
from lmft_api.wire.layout import REPORT
from lmft_api.wire.report import Report
from lmft_job.cli.manifest import NAMESPACE
from lmft_job.errors import InvalidError
from lmft_job.storage import open_store

RUNS = Path("runs")
"""Where ``lmft run`` puts runs whose manifest names no place."""


def read_report(place: str) -> Report:
    """The report of a run.

    Args:
        place: its folder, an s3:// or file:// address of its folder, or the name of a run in ./runs.

    Raises:
        InvalidError: there is no finished run, or its report cannot be read.
        RefusedError, UnavailableError: the storage refuses, or does not answer.
    """
    address = place if in_storage(place) else f"file://{folder_of_run(place)}"
    store = open_store(address.removesuffix(f"/{REPORT}"))
    data = store.get_bytes(REPORT)
    if data is None:
        raise InvalidError([f"{place}: no {REPORT} there; is it the folder of a run that has finished?"])
    try:
        return Report.from_json(data)
    except ValidationError as error:
        raise InvalidError([f"{place}: {REPORT} is not a report of a run"]) from error


def folder_of_run(place: str) -> Path:
    """The folder of a run of this machine, by its path or its name in ./runs.

    Raises:
        InvalidError: there is none.
    """
    path = Path(place).expanduser()
    by_name = RUNS / NAMESPACE / "runs" / place
    if not path.exists() and by_name.is_dir():
        path = by_name
    if path.name == REPORT:
        path = path.parent
    if not path.is_dir():
        raise InvalidError([f"{place}: neither a folder nor a run in {RUNS / NAMESPACE / 'runs'}"])
    return path.absolute()


def titles(reports: list[Report]) -> list[str]:
    """A name for each run: its own, with a number where several share it."""
    names = [report.name for report in reports]
    return [name if names.count(name) == 1 else f"{name} ({at + 1})" for at, name in enumerate(names)]
