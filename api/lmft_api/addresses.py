"""Addresses of storage: how s3:// and file:// are read, and which of them a platform's patterns admit.

The operator and the job ask here, so that what was admitted is what is read.
"""

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

OBJECT_STORES = ("s3",)
"""Schemes of object storage: ``scheme://bucket/key``."""
SCHEMES = (*OBJECT_STORES, "file")
"""Schemes of all storage."""
WILDCARDS = "*?"
"""What names several files in ``spec.dataset.files``: ``*`` and ``?`` within a level, ``**`` across levels."""
_STAR = "*"
_PIECES = re.compile(r"\*+|\[!?+\]?+[^\]]*\]|.", re.DOTALL)
_LIKE_ENCODED = re.compile(r"%(?=[0-9A-Fa-f]{2})")


def in_storage(source: str) -> bool:
    """Whether a source is an address in storage; otherwise it is a hub id."""
    return source.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def decoded(uri: str) -> str:
    """The address with ``%20`` and the like decoded once, as the job reads it; hub ids and buckets stay as they are."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    host, slash, path = ("", "", rest) if scheme == "file" else rest.partition("/")
    return f"{scheme}://{host}{slash}{unquote(path)}"


def readable(uri: str) -> str:
    """An address from a bucket and a key as they are: for people, and read as the same bucket and key again."""
    return _LIKE_ENCODED.sub("%25", uri)


def admits(pattern: str, address: str, *, wildcards: bool) -> bool:
    """Whether a platform's pattern admits all that a decoded address names.

    Args:
        pattern: ``*`` stands for any characters, ``/`` included, ``?`` for one, ``[…]`` for one of these.
        address: decoded (:func:`decoded`).
        wildcards: whether ``*`` and ``?`` in the address are a manifest's wildcards, which stand for anything: these
            are within what a ``*`` of the pattern stands for, or not admitted. Otherwise they are letters.
    """
    pieces = _pieces(pattern)
    at, piece, star, resume = 0, 0, -1, 0
    while at < len(address):
        if piece < len(pieces) and pieces[piece] == _STAR:
            star, resume, piece = piece, at, piece + 1
        elif piece < len(pieces) and _fits(pieces[piece], address[at], wildcards):
            at, piece = at + 1, piece + 1
        elif star >= 0:
            # The last star takes one more letter; an earlier one need never, so this takes length times length at most.
            resume += 1
            at, piece = resume, star + 1
        else:
            return False
    return all(left == _STAR for left in pieces[piece:])


def _fits(piece: str, letter: str, wildcards: bool) -> bool:
    if wildcards and letter in WILDCARDS:
        return False
    return piece == "?" or (fnmatchcase(letter, piece) if len(piece) > 1 else piece == letter)


@lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[str, ...]:
    """The pattern in pieces: one ``*`` for several, ``?``, a bracket, or a letter."""
    return tuple(_STAR if piece.startswith(_STAR) else piece for piece in _PIECES.findall(pattern))
