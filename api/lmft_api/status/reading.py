"""Reads a status that another release wrote: what this one knows of it, and nothing lost of the rest.

A release that comes after this one may have written fields, values and longer lists that this one has no types for. An
operator that is rolled back, and an older ``lmft watch``, must take in what they know: attempts that are dropped would
be counted once more. What they do not know has to survive their own writes, inside lists too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from lmft_api.status import MAX_ATTEMPTS_KEPT, MAX_CONDITIONS, MAX_EVALUATIONS_KEPT, LMFineTuneStatus

LISTS = {
    "attempts": ("number", MAX_ATTEMPTS_KEPT),
    "conditions": ("type", MAX_CONDITIONS),
    "evaluations": ("step", MAX_EVALUATIONS_KEPT),
}
"""Lists of the status whose entries are known by a field, and how many they may have."""
_ROUNDS = 16
"""What is taken out may be missed by what holds it, which goes with the next round; nothing lies that deep."""


def read_status(text: str) -> LMFineTuneStatus:
    """The status as far as it can be read: whatever does not fit is left out with as little around it as may be."""
    try:
        return LMFineTuneStatus.model_validate_json(text)
    except ValidationError as problem:
        found = problem
    whole = json.loads(text)
    for _ in range(_ROUNDS):
        if not isinstance(whole, dict):
            break
        for error in found.errors(include_url=False, include_input=False):
            _leave_out(whole, error["loc"], error.get("ctx", {}).get("max_length"))
        whole = _without_gaps(whole)
        try:
            return LMFineTuneStatus.model_validate_json(json.dumps(whole))
        except ValidationError as problem:
            found = problem
    return LMFineTuneStatus()


def with_unknown(patch: dict[str, Any], stored: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch of the status, its lists with what this release does not know of their entries.

    A merge patch leaves unknown fields of objects alone by itself; a list it replaces as a whole.

    Args:
        patch: from the status that was read to the wanted one.
        stored: the status as it stands, with all that is in it.
        known: the status as it was read.
    """
    whole = dict(patch)
    for name, (key, most) in LISTS.items():
        wanted, entries = patch.get(name), stored.get(name)
        if not isinstance(wanted, list) or not isinstance(entries, list):
            continue
        before = {
            entry[key]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get(key), str | int)
        }
        read = {entry[key]: entry for entry in known.get(name) or ()}
        named = {entry[key] for entry in wanted}
        restored = [_restored(entry, before.get(entry[key], {}), read.get(entry[key], {})) for entry in wanted]
        unread = [entry for number, entry in before.items() if number not in read and number not in named]
        whole[name] = (unread + restored)[-most:]
    return whole


def _restored(entry: Mapping[str, Any], stored: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name not in known and name not in entry} | dict(entry)


_GAP = object()


def _leave_out(whole: Any, place: Sequence[int | str], longest: int | None) -> None:
    """Mark what an error is about as a gap; of what is too long keep as much as fits, of lists the newest."""
    for depth in range(len(place), 0, -1):
        # A required field that is missing has no place of its own: then what should hold it goes.
        holder: Any = whole
        for part in place[: depth - 1]:
            holder = _below(holder, part)
        value = _below(holder, place[depth - 1])
        if value is not None:
            holder[place[depth - 1]] = _cut(value, longest) if depth == len(place) and longest else _GAP
            return


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, dict):
        return dict(list(value.items())[:longest])
    return value[-longest:] if isinstance(value, list) else value[:longest] if isinstance(value, str) else _GAP


def _below(holder: Any, part: Any) -> Any:
    if isinstance(holder, dict):
        return holder.get(part)  # None is no value of a status either
    inside = isinstance(holder, list) and isinstance(part, int) and part < len(holder)
    return holder[part] if inside else None


def _without_gaps(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_gaps(entry) for name, entry in value.items() if entry is not _GAP}
    return [_without_gaps(entry) for entry in value if entry is not _GAP] if isinstance(value, list) else value
