"""Folders of a pod that hold no data but secrets: no manifest may read them, by a link on a volume either."""

from pathlib import Path

from lmft_job.errors import InvalidError

_FOLDERS = ("/etc/lmft", "/var/run/secrets", "/run/secrets", "/proc", "/sys", "/dev")


def refuse_private(path: Path, field: str) -> None:
    """Raises :class:`InvalidError` for a path in one of those folders, with the manifest field that names it."""
    if any(path.is_relative_to(folder) for folder in _FOLDERS):
        raise InvalidError([f"{field}: {path} lies outside of what a manifest may read"])
