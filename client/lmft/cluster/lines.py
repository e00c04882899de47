"""Lines of an answer that comes bit by bit. No I/O."""

from collections.abc import Iterable, Iterator


def split_lines(parts: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """The lines without their ends; one that is longer than ``longest`` bytes comes in pieces of that size.

    So a writer that never ends its line takes no more memory than that.
    """
    kept = bytearray()
    for part in parts:
        begin = 0
        while (end := part.find(b"\n", begin)) >= 0:
            kept += part[begin:end]
            begin = end + 1
            yield from _pieces(kept, longest)
            yield bytes(kept)
            kept.clear()
        kept += part[begin:]
        yield from _pieces(kept, longest)
    if kept:
        yield bytes(kept)


def _pieces(kept: bytearray, longest: int) -> Iterator[bytes]:
    """Take whole pieces from the front until no more than one is left."""
    while len(kept) > longest:
        yield bytes(kept[:longest])
        del kept[:longest]
