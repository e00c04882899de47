"""Small JSON notes that a run keeps in its folder, and people may have edited."""

import json
from typing import Any

from lmft_job.errors import InvalidError
from lmft_job.storage import Store


def read_note(store: Store, key: str) -> dict[str, Any] | None:
    """The note at a key of the run's folder; None when there is none.

    Raises:
        InvalidError: it is not what was written there.
    """
    data = store.get_bytes(key)
    if data is None:
        return None
    try:
        note = json.loads(data)
    except ValueError:
        note = None
    if not isinstance(note, dict):
        raise InvalidError([f"spec.output.uri: {store.url(key)} is damaged; remove it and run again"])
    return note
