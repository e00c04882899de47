"""Conversations put into packs of bounded length, best fit first; the same lengths give the same packs."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put rows into packs: the longest first, each where it leaves the least room (best-fit decreasing).

    Args:
        lengths: tokens of each row, none above the capacity.
        capacity: most tokens of a pack.

    Returns:
        The numbers of the rows of each pack, ascending; packs by their first row.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    packs: list[list[int]] = []
    open_packs: dict[int, list[int]] = {}  # room left -> packs with that room
    rooms: list[int] = []
    for row in order.tolist():
        length = int(lengths[row])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            packs.append([row])
            room, pack = capacity, len(packs) - 1
        else:
            room = rooms[place]
            pack = open_packs[room].pop()
            packs[pack].append(row)
            if not open_packs[room]:
                del open_packs[room], rooms[place]
        left = room - length
        if left:
            if left not in open_packs:
                insort(rooms, left)
            open_packs.setdefault(left, []).append(pack)
    return sorted(sorted(pack) for pack in packs)
