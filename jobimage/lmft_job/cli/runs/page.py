"""``lmft open``: the report of a finished run in a browser, wherever it is stored."""

import tempfile
import webbrowser
from pathlib import Path

from lmft_api.addresses import in_storage
from lmft_api.wire.layout import PAGE
from lmft_job.cli.compare.runs import folder_of_run
from lmft_job.errors import InvalidError
from lmft_job.storage import open_store


def page_of(place: str) -> tuple[Path, str]:
    """The page as a file of this machine, and where it came from, for people.

    Args:
        place: a run's folder, its s3:// or file:// address, or the name of a run in ./runs.

    Raises:
        InvalidError: there is no finished run.
        RefusedError, UnavailableError: the storage refuses, or does not answer.
    """
    if not in_storage(place):
        folder = folder_of_run(place)
        if not (folder / PAGE).is_file():
            raise InvalidError([f"{place}: no {PAGE} there; is it the folder of a run that has finished?"])
        return folder / PAGE, str(folder / PAGE)
    address = place.removesuffix(f"/{PAGE}")
    data = open_store(address).get_bytes(PAGE)
    if data is None:
        raise InvalidError([f"{place}: no {PAGE} there; is it the folder of a run that has finished?"])
    kept = Path(tempfile.mkdtemp(prefix="lmft-report-")) / PAGE
    kept.write_bytes(data)
    return kept, f"{address}/{PAGE}, read with your own settings for storage (AWS_*, ~/.aws)"


def show(page: Path) -> bool:
    """Open the page; whether there is a browser."""
    return webbrowser.open(page.absolute().as_uri())
