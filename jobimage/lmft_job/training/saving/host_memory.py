"""Memory that this process may still take, of the machine's and of its container's. Imports nothing heavy."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that can be allocated before somebody is killed for it; None where the system does not say.

    What the kernel can drop, such as files that were read or written, counts as free. Of the control groups around the
    process, version 2 or 1, the one with the least left counts.

    Args:
        root: where ``proc`` and ``sys`` are; another one in tests.
    """
    found = [_of_machine(root), *(_of_group(*files) for files in _groups(root))]
    known = [value for value in found if value is not None]
    return max(0, min(known)) if known else None


def _of_machine(root: Path) -> int | None:
    kilobytes = _field(root / "proc/meminfo", "MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _of_group(limit: Path, used: Path, droppable: tuple[Path, str]) -> int | None:
    most, now = _number(limit), _number(used)
    return None if most is None or now is None else most - now + (_field(*droppable) or 0)


def _groups(root: Path) -> Iterator[tuple[Path, Path, tuple[Path, str]]]:
    """Files with limit and usage of the control groups that this process is in, outermost last."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = ("memory.max", "memory.current", "inactive_file")
        base = root / "sys/fs/cgroup"
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base /= "memory"
        here = Path(path.lstrip("/"))
        for group in (here, *here.parents):
            if ".." not in group.parts:
                place = base / group
                yield place / names[0], place / names[1], (place / "memory.stat", names[2])


def _number(file: Path) -> int | None:
    text = "".join(_lines(file))
    return int(text) if text.isdecimal() else None


def _field(file: Path, name: str) -> int | None:
    for line in _lines(file):
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
