"""The files that ``spec.dataset.files`` names: on this machine, or fetched from s3://."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from lmft_api.addresses import OBJECT_STORES, WILDCARDS, admits, decoded
from lmft_api.reasons import Reason
from lmft_job.data.sources.lines import DataFile
from lmft_job.data.tokens.packing import Check
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.process.secrets import refuse_private
from lmft_job.process.transfers import Told, arriving, silent
from lmft_job.storage import Walk, expand, matches, open_followed, open_store


def find_files(
    uris: list[str],
    scratch: Path,
    credentials: Path | None,
    check: Check,
    admitted: Sequence[str] | None = None,
    told: Told = silent,
) -> list[DataFile]:
    """Every file that the addresses name, fetched if remote; wildcards by the storage's own rules.

    Args:
        uris: addresses as in the manifest.
        scratch: folder for fetched files.
        credentials: folder of AWS_* files for s3:// data.
        check: called often; raises if a stop was requested.
        admitted: patterns of the platform that each file's address must match; None allows all.
        told: is told what has arrived of remote files.

    Raises:
        InvalidError: an address that the platform does not allow; lists every problem found.
        RefusedError: not found, or not readable.
    """
    found: dict[str, DataFile] = {}
    invalid: list[str] = []
    refused: list[RefusedError] = []
    for number, uri in enumerate(uris):
        where = f"spec.dataset.files[{number}]"
        scheme, _, rest = decoded(uri).partition("://")
        if ".." in rest.split("/"):
            invalid.append(f"{where}: {uri!r} leads outside by '..'; write the full path")
            continue
        if "\0" in rest:
            invalid.append(f"{where}: {uri!r} contains %00, which no name may")
            continue
        try:
            if scheme in OBJECT_STORES:
                bucket, _, key = rest.partition("/")
                store = open_store(f"{scheme}://{bucket}", credentials, purpose="dataset", field=where)
                items, folder = list(expand(store, key)), scratch / "files"
                folder.mkdir(parents=True, exist_ok=True)
                with arriving(uri, folder, told, sum(item.size for item in items)):
                    for item in items:
                        _require_admitted(f"{scheme}://{bucket}/{item.key}", admitted, where)
                        target = folder / hashlib.sha256(store.url(item.key).encode()).hexdigest()
                        store.get_file(item.key, target, check)
                        found.setdefault(store.url(item.key), DataFile(target, store.url(item.key)))
            else:
                for path in _local(Path(rest).absolute(), where):  # file://data/x.jsonl is relative
                    # Both: a link in an allowed folder may lead to one that is not.
                    _require_admitted(f"file://{path}", admitted, where)
                    _require_admitted(f"file://{os.path.realpath(path)}", admitted, where)
                    found.setdefault(str(path), DataFile(path, f"file://{path}"))
        except InvalidError as error:
            invalid += error.problems
        except RefusedError as error:
            refused.append(error)
    if invalid:
        raise InvalidError([*invalid, *(str(error) for error in refused)])
    if refused:
        raise RefusedError(refused[0].reason, "; ".join(str(error).rstrip(".") for error in refused))
    return list(found.values())


def _require_admitted(address: str, admitted: Sequence[str] | None, where: str) -> None:
    if admitted is not None and not any(admits(pattern, address, wildcards=False) for pattern in admitted):
        words = "is not allowed here (policy.sources.uris); choose another, or ask the platform team"
        raise InvalidError([f'{where}: "{address}" {words}'])


def _local(pattern: Path, where: str) -> list[Path]:
    """The local files that a path names; ``*`` and ``?`` stay within a level, ``**`` crosses levels."""
    refuse_private(pattern, where)
    if pattern.is_dir():
        raise RefusedError(
            Reason.DATASET_NOT_FOUND,
            f"{where}: {pattern} is a folder; name the files in it, such as file://{pattern}/*.jsonl.",
        )
    found = _named(pattern)
    if not found:
        folder = pattern.parent
        there = sorted(entry.name for entry in folder.iterdir())[:10] if folder.is_dir() else []
        hint = f"{folder} has {', '.join(there)}" if there else f"{folder} is empty or does not exist"
        raise RefusedError(Reason.DATASET_NOT_FOUND, f"{where}: no file matches {pattern}; {hint}.")
    for path in found:
        refuse_private(Path(os.path.realpath(path)), where)  # Path.resolve fails on links in a circle
        if path.is_symlink() and not path.exists():
            raise RefusedError(Reason.DATASET_NOT_FOUND, f"{where}: {path} is a broken link.")
        try:
            open_followed(path, where).close()
        except OSError as error:
            raise RefusedError(
                Reason.DATASET_ACCESS_DENIED,
                f"{where}: {path} cannot be read ({error.strerror}). Check its permissions.",
            ) from error
    return found


def _named(pattern: Path) -> list[Path]:
    """The paths that match a pattern. Wildcards do not match names that begin with a dot, as in a shell."""
    levels = pattern.parts
    first = next((at for at, level in enumerate(levels) if any(letter in level for letter in WILDCARDS)), None)
    if first is None:
        return [pattern] if os.path.lexists(pattern) and not pattern.is_dir() else []
    folder, wanted = Path(*levels[:first]), levels[first:]
    hidden = any(level.startswith(".") for level in wanted)
    found = [
        folder.joinpath(*item.levels)
        for item in Walk(folder, follow=True, dangling=True)
        if matches(item.levels, wanted) and (hidden or not any(level.startswith(".") for level in item.levels))
    ]
    return sorted(found, key=str)
