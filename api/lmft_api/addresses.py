"""Storage addresses: how s3:// and file:// are parsed, and which of them a platform's patterns allow.

The operator and the job both use this module, so that the job reads exactly what the operator allowed.
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
"""Wildcards in ``spec.dataset.files``: ``*`` and ``?`` within a path segment, ``**`` across segments."""
_STAR = "*"
_PIECES = re.compile(r"\*+|\[!?+\]?+[^\]]*\]|.", re.DOTALL)
_LIKE_ENCODED = re.compile(r"%(?=[0-9A-Fa-f]{2})")


def in_storage(source: str) -> bool:
    """Whether a source is a storage address; otherwise it is a hub id."""
    return source.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def decoded(uri: str) -> str:
    """The address percent-decoded once, as the job reads it; hub ids and buckets are unchanged."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    host, slash, path = ("", "", rest) if scheme == "file" else rest.partition("/")
    return f"{scheme}://{host}{slash}{unquote(path)}"


def readable(uri: str) -> str:
    """The address of a literal bucket and key, for people; it is parsed back to the same bucket and key."""
    return _LIKE_ENCODED.sub("%25", uri)


def admits(pattern: str, address: str, *, wildcards: bool) -> bool:
    """Whether a platform's pattern allows everything that a decoded address names.

    Args:
        pattern: ``*`` matches any characters, ``/`` included, ``?`` one, ``[…]`` one of those listed.
        address: decoded (:func:`decoded`).
        wildcards: whether ``*`` and ``?`` in the address are a manifest's wildcards, which may stand for anything: they
            must fall within what a ``*`` of the pattern matches. Otherwise they are literal characters.
    """
    pieces = _pieces(pattern)
    at, piece, star, resume = 0, 0, -1, 0
    while at < len(address):
        if piece < len(pieces) and pieces[piece] == _STAR:
            star, resume, piece = piece, at, piece + 1
        elif piece < len(pieces) and _fits(pieces[piece], address[at], wildcards):
            at, piece = at + 1, piece + 1
        elif star >= 0:
            # The last star takes one more character; an earlier one need not, so it takes at most length times length.
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
    """The pattern split into tokens: ``*`` (several count as one), ``?``, a bracket, or a character."""
    return tuple(_STAR if piece.startswith(_STAR) else piece for piece in _PIECES.findall(pattern))
