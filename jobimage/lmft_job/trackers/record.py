"""``tracked.json``: as what trackers know a run, for later attempts, and for what is sent after its end."""

import json
import re
from dataclasses import dataclass
from typing import Any

from lmft_api.wire.layout import TRACKED_AS
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note
from lmft_job.trackers.tracker import RunCard

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class Record:
    """Content of the file. No address of a tracker: whoever may write it could name another, and be sent the key.

    Attributes:
        card: what is shown of the run; of earlier versions only the id is known.
        experiment: of MLflow; None where the run did not report to it.
        project: of Weights & Biases, and the entity that it belongs to.
    """

    card: RunCard
    experiment: str | None = None
    project: str | None = None
    entity: str | None = None


def store_record(store: Store, record: Record) -> None:
    """Write the file; ``store`` is rooted at the run's folder."""
    card = record.card
    content = {
        "id": card.id,
        "name": card.name,
        "params": card.params,
        "tags": card.tags,
        "experiment": record.experiment,
        "project": record.project,
        "entity": record.entity,
    }
    store.put_bytes(TRACKED_AS, json.dumps(content, ensure_ascii=False, indent=1).encode())


def read_record(store: Store) -> Record | None:
    """What the file holds; None if the run has reported to no server.

    Raises:
        InvalidError: it is damaged.
        NewerReleaseError: only a newer release can read it.
    """
    return read_note(store, TRACKED_AS, _understood)


def _understood(note: dict[str, Any]) -> Record:
    if not _ID.fullmatch(note["id"]):
        raise ValueError("no id")
    params, tags = note.get("params", {}), note.get("tags", {})
    if not all(value is None or isinstance(value, str | int | float) for value in params.values()):
        raise TypeError("params")
    texts = [note.get("name", ""), *tags.values()]
    places = [note.get(name) for name in ("experiment", "project", "entity")]
    if not all(isinstance(text, str) for text in [*texts, *(place for place in places if place is not None)]):
        raise TypeError("no text")
    return Record(RunCard(note["id"], note.get("name", ""), params, tags), *places)
