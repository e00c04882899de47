"""Files and folders below a given one, with possibly hostile content: links that lead elsewhere or in circles, fifos,
devices, names that are not UTF-8.

The given folder itself may be a link: whoever named it meant its target. Below it links are followed only to read
data and models, as in the hub's cache; never in an output folder, into which others may write too.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lmft_job.process.secrets import refuse_private

log = logging.getLogger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LONGEST_KEY = 1024  # bytes, S3's own limit; deeper trees are likely an attack
_TRIES = 3


class NotPlainError(OSError):
    """A link, a fifo or a device where a file or a folder is wanted."""


@contextmanager
def folder_beneath(top: Path, levels: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of a folder below ``top``, opened level by level without following a link.

    Raises:
        NotPlainError: a level is a link.
        NotADirectoryError: a level is a file.
        FileNotFoundError: a level does not exist, and ``create`` is not set.
    """
    if create:
        top.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(top, _FOLDER)
    try:
        for level in levels:
            deeper = _open_level(descriptor, level, create)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _open_level(parent: int, name: str, create: bool) -> int:
    for _ in range(_TRIES):
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
            # Another attempt may remove the empty folder before it is opened, hence the retries.
            try:
                os.mkdir(name, dir_fd=parent)
            except FileExistsError:
                continue
        except OSError as error:
            if is_link(parent, name):
                raise _followed_not(name) from error
            raise
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)


def is_link(parent: int, name: str) -> bool:
    """Whether a name in an open folder is a link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _followed_not(name: str) -> NotPlainError:
    words = f"{name!r} is a link, and links below the folder of an output are not followed; use its target instead"
    return NotPlainError(errno.ELOOP, words, name)


def open_beneath(top: Path, levels: Sequence[str]) -> BinaryIO:
    """Opens a file below ``top`` for reading, without following a link.

    Raises:
        NotPlainError: it is a link, a fifo or a device, or a level before it is a link.
        IsADirectoryError: it is a folder.
    """
    *parents, name = levels
    with folder_beneath(top, parents) as parent:
        if is_link(parent, name):
            raise _followed_not(name)
        # Opening a device may have side effects, so check it first; and again, since it may have been exchanged.
        _require_plain(os.stat(name, dir_fd=parent, follow_symlinks=False), name)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    return _plain_file(descriptor, name)


def open_followed(path: Path, field_name: str) -> BinaryIO:
    """Opens a file of data or of a model for reading; links are followed, except into folders with a pod's secrets.

    Raises:
        NotPlainError: it is, or leads to, a fifo or a device.
        IsADirectoryError: it is a folder.
        InvalidError: it leads to the pod's secrets.
    """
    _require_plain(os.stat(path), str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = _plain_file(descriptor, str(path))
    try:
        # Where it really is, is determined from the open file: a link may be exchanged between a check and the opening.
        really = f"/proc/self/fd/{descriptor}"
        refuse_private(Path(os.readlink(really) if os.path.lexists(really) else os.path.realpath(path)), field_name)
    except BaseException:
        file.close()
        raise
    return file


def _plain_file(descriptor: int, name: str) -> BinaryIO:
    try:
        _require_plain(os.fstat(descriptor), name)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_plain(info: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", name)
    if not stat.S_ISREG(info.st_mode):
        raise NotPlainError(errno.EACCES, f"{name!r} is neither a file nor a folder (a fifo or a device)", name)


@dataclass(frozen=True)
class Found:
    """A plain file: path levels relative to the walk's start, size in bytes, modification time in UNIX seconds."""

    levels: tuple[str, ...]
    size: int
    modified: float

    @property
    def name(self) -> str:
        """'/'-separated."""
        return "/".join(self.levels)


@dataclass
class Walk:
    """All plain files below a folder; nothing if it does not exist.

    A folder that links lead to is visited once, however many lead there. Fifos, devices, broken links (unless
    requested) and names that are not UTF-8 are left out; the log reports the number of such names.

    Args:
        top: see :func:`folder_beneath`.
        levels: levels of the folder, below ``top``.
        follow: whether links are followed.
        dangling: whether links that are broken or circular are included too, so that the caller can report them.
    """

    top: Path
    levels: tuple[str, ...] = ()
    follow: bool = False
    dangling: bool = False
    _visited: set[tuple[int, int]] = field(default_factory=set)
    _unreadable: int = 0

    def __iter__(self) -> Iterator[Found]:
        """Raises OSError for a folder that exists and cannot be read: unknown does not mean empty."""
        folders: list[tuple[tuple[str, ...], bool]] = [((), False)]
        while folders:
            links: list[tuple[tuple[str, ...], bool]] = []
            levels, by_link = folders.pop()
            for name, info, is_link in self._entries(levels, by_link):
                below = (*levels, name)
                if not stat.S_ISDIR(info.st_mode):
                    yield Found(below, info.st_size, info.st_mtime)
                elif len("/".join(below).encode()) <= _LONGEST_KEY:
                    # Real folders before links, so that a folder is listed under its own name.
                    (links if is_link else folders).append((below, is_link))
            folders[:0] = links
        if self._unreadable:
            log.warning("%s: %s names that are not UTF-8 are left out", self.top, self._unreadable)

    def _entries(self, levels: tuple[str, ...], by_link: bool) -> Iterator[tuple[str, os.stat_result, bool]]:
        try:
            with self._opened(levels) as descriptor:
                about = os.fstat(descriptor)
                if by_link and (about.st_dev, about.st_ino) in self._visited:
                    return
                self._visited.add((about.st_dev, about.st_ino))
                with os.scandir(descriptor) as entries:
                    yield from self._wanted(entries)
        except (NotADirectoryError, NotPlainError):
            return  # exchanged since it was listed
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise

    def _wanted(self, entries: Iterator["os.DirEntry[str]"]) -> Iterator[tuple[str, os.stat_result, bool]]:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                self._unreadable += 1
                continue
            link = entry.is_symlink()
            if link and not self.follow:
                continue
            try:
                info = entry.stat(follow_symlinks=self.follow)
            except OSError as error:
                if link and self.dangling:
                    yield entry.name, entry.stat(follow_symlinks=False), link
                elif not link and not isinstance(error, FileNotFoundError):
                    raise
                continue  # a link that is broken, circular or leads to a forbidden place; or a file that was removed
            if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                yield entry.name, info, link

    @contextmanager
    def _opened(self, levels: tuple[str, ...]) -> Iterator[int]:
        if not self.follow:
            with folder_beneath(self.top, (*self.levels, *levels)) as descriptor:
                yield descriptor
            return
        descriptor = os.open(self.top.joinpath(*self.levels, *levels), _FOLDER)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
