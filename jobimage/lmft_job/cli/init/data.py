"""The data that ``lmft init`` is given: which files, of which format, and their first rows."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lmft_api.addresses import WILDCARDS, decoded, in_storage
from lmft_api.spec import DataFormat
from lmft_api.spec.dataset import ENDINGS
from lmft_job.cli.manifest import address
from lmft_job.data.problems import Problems
from lmft_job.data.sources import files
from lmft_job.data.sources.lines import DataFile
from lmft_job.data.sources.places import find_files
from lmft_job.data.text.fields import is_missing
from lmft_job.errors import InvalidError

FIRST_ROWS = 500
_FORMATS = {f".{ending}": kind for kind, endings in ENDINGS.items() for ending in endings}


@dataclass(frozen=True)
class Sample:
    """What was found.

    Attributes:
        addresses: for ``spec.dataset.files``.
        format: of all files.
        rows: the first rows.
        title: the files, for people.
        stem: name of the file or folder, without its ending.
        left_out: files of a folder that have another format, in words; empty if there are none.
    """

    addresses: list[str]
    format: DataFormat
    rows: list[dict[str, Any]]
    title: str
    stem: str
    left_out: str = ""


def look_at(places: list[str], scratch: Path) -> Sample:
    """Find the files and read their first rows.

    Args:
        places: files, folders and wildcards of this machine, or addresses (s3://, file://).
        scratch: folder for what is fetched.

    Raises:
        InvalidError: files of different formats or of none that is known, or without rows.
        RefusedError: there are no such files, or they cannot be read.
        UnavailableError: the storage does not answer.
        OSError: a folder cannot be listed.
    """
    chosen = [_addresses(place) for place in places]
    addresses = [address for some, _ in chosen for address in some]
    found = find_files(addresses, scratch, None, lambda: None)
    kind = _format(found)
    problems = Problems()
    batches = chain.from_iterable(files.read(file, kind, [], problems, alone=True) for file in found)
    rows = [row for row in islice(chain.from_iterable(batches), FIRST_ROWS) if not all(map(is_missing, row.values()))]
    if problems.found:
        raise InvalidError([problem.removeprefix("spec.dataset.files: ") for problem in problems.all()])
    if not rows:
        raise InvalidError([f"{found[0].name}: contains no rows"])
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Sample(
        addresses,
        kind,
        rows,
        f"{found[0].name.rsplit('/', 1)[-1]}{more}",
        _stem(addresses[0]),
        "; ".join(left for _, left in chosen if left),
    )


def _addresses(place: str) -> tuple[list[str], str]:
    """A place on the command line as addresses, and what they leave out of it, in words.

    A folder becomes a wildcard for each ending of its most frequent format.
    """
    if in_storage(place):
        return [place], ""
    path = Path(place).expanduser().absolute()
    if not path.is_dir():
        # The shell has expanded its wildcards already; a star that is left is part of a name, or was quoted.
        return [address(path)], ""
    endings = Counter(entry.suffix for entry in path.iterdir() if entry.suffix.lower() in _FORMATS)
    if not endings:
        raise InvalidError([f"{place}: no file in this folder ends in {', '.join(_FORMATS)}; name the files"])
    formats: Counter[DataFormat] = Counter()
    for ending, number in endings.items():
        formats[_FORMATS[ending.lower()]] += number
    # Among formats of as many files, text is the last choice: such files often tell about the data.
    chosen = max(formats, key=lambda kind: (formats[kind], kind != DataFormat.TEXT, kind.value))
    taken = sorted(ending for ending in endings if _FORMATS[ending.lower()] == chosen)
    left = [f"{number} of {ending}" for ending, number in sorted(endings.items()) if ending not in taken]
    return [address(path / f"*{ending}") for ending in taken], ", ".join(left)


def _stem(address: str) -> str:
    """``articles`` for ``file:///data/articles.csv`` and for ``file:///data/articles/*.csv``."""
    *folders, last = decoded(address).split("/")
    return folders[-1] if any(letter in last for letter in WILDCARDS) else last.partition(".")[0]


def _format(found: list[DataFile]) -> DataFormat:
    formats = {file.name: _FORMATS.get(Path(file.name).suffix.lower()) for file in found}
    if unknown := next((name for name, kind in formats.items() if kind is None), None):
        raise InvalidError([f"{unknown}: its ending tells no format; name files that end in {', '.join(_FORMATS)}"])
    kinds = {kind for kind in formats.values() if kind is not None}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.value for kind in kinds))
        raise InvalidError([f"the files are of several formats ({names}); a run reads files of one"])
    return kinds.pop()
