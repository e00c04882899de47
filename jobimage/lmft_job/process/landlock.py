"""Landlock (Linux 5.13 and later): a process permanently gives up access to every file that it does not list.

Numbers and structures are from the kernel's ``include/uapi/linux/landlock.h``, system call numbers from the table that
is common to all architectures since 5.x. See https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# By ABI version: the access rights it adds to the previous version.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK = {4: 0b11}  # bind, connect
_SCOPES = {6: 0b11}  # abstract sockets, signals
_READ = _READ_FILE | _READ_DIR | _EXECUTE
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | (1 << 14) | (1 << 15)
_WRITE = (1 << 13) - 1 & ~_EXECUTE | (1 << 14)


def version() -> int:
    """The kernel's Landlock ABI version; 0 if it has none, or a surrounding sandbox forbids the query."""
    answer = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    return max(0, int(answer))


def restrict(readable: Iterable[Path], writable: Iterable[Path] = ()) -> bool:
    """From now on this thread, and what it starts, can open only these folders and files, and no connection.

    Paths that do not exist are skipped.

    Returns:
        False if the kernel has no Landlock, and nothing is restricted.

    Raises:
        OSError: the kernel has it and refuses.
    """
    known = version()
    if known == 0:
        return False
    handled = [sum(bit for since, bit in table.items() if since <= known) for table in (_FILES, _NETWORK, _SCOPES)]
    attributes = struct.pack("=QQQ", *handled)
    size = 8 if known < 4 else 16 if known < 6 else 24
    libc = _libc()
    rules = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "a set of rules")
    try:
        for paths, wanted in ((readable, _READ), (writable, _READ & ~_EXECUTE | _WRITE)):
            for path in paths:
                _allow(libc, rules, path, wanted & handled[0])
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
        _checked(libc.syscall(_RESTRICT_SELF, rules, 0), "the restriction")
    finally:
        os.close(rules)
    return True


def _allow(libc: ctypes.CDLL, rules: int, path: Path, wanted: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
            return
        raise
    try:
        rights = wanted if path.is_dir() else wanted & _ON_FILES
        beneath = struct.pack("=Qi", rights, parent)
        _checked(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, beneath, 0), f"a rule for {path}")
    finally:
        os.close(parent)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {what}: {os.strerror(number)}")
    return answer
