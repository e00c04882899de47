"""Which run owns a folder, and what the run began with: a later attempt resumes with the same, or is refused."""

import json
from dataclasses import dataclass
from typing import Any

from lmft_api.wire.layout import RUN_MARKER
from lmft_api.wire.run_file import spec_hash
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.result import versions
from lmft_job.data.prepared import code_version
from lmft_job.errors import InvalidError
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

_DECIDES_ROWS = ("python", "datasets", "tokenizers", "transformers")


@dataclass(frozen=True)
class RunIdentity:
    """What ``run.json`` in a run's folder says.

    Attributes:
        name: of the run.
        specHash: of its spec, without what may change.
        data: fingerprint of the prepared data; None in a note of an earlier version.
        model: commit of the model on the hub; None where it has none.
        software: what the data was prepared with: other software may name the same data otherwise.
    """

    name: str
    specHash: str
    data: str | None = None
    model: str | None = None
    software: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """As ``run.json`` holds it."""
        return {
            "name": self.name,
            "specHash": self.specHash,
            "data": self.data,
            "model": self.model,
            "software": self.software,
        }


def read_claim(store: Store) -> RunIdentity | None:
    """What an attempt before has noted; None when there was none.

    Raises:
        InvalidError: the note is damaged.
    """

    def understand(note: dict[str, Any]) -> RunIdentity:
        known = [note.get(name) for name in ("data", "model", "software")]
        if not all(value is None or isinstance(value, str) for value in known):
            raise TypeError("text wanted")
        return RunIdentity(str(note["name"]), str(note["specHash"]), *known)

    return read_note(store, RUN_MARKER, understand)


def claim(context: RunContext, store: Store, began: RunIdentity | None, data: str, model: str | None) -> None:
    """Note in the run's folder whose it is. Not before all was looked at: a manifest that was wrong may change.

    Args:
        context: of the attempt.
        store: rooted at the run's folder.
        began: what an attempt before has noted.
        data: fingerprint of the prepared data.
        model: commit of the model on the hub, where it has one.

    Raises:
        InvalidError: data or model are others than those that the run began with.
    """
    ours = RunIdentity(context.run.name, spec_hash(context.run.spec), data, model, _software())
    if began is not None:
        if problems := _changes(began, ours, in_pod=context.in_pod):
            raise InvalidError(problems)
        if began.data not in (None, data):
            context.observer.note("another version of LMFineTune than the run began with has prepared its data again")
    store.put_bytes(RUN_MARKER, json.dumps(ours.to_json()).encode())


def same_software(began: RunIdentity) -> bool:
    """Whether the data that the run began with is what this software would have made of it."""
    return began.software == _software()


def _changes(began: RunIdentity, ours: RunIdentity, *, in_pod: bool) -> list[str]:
    """What is another than when the run began, with what to do."""
    problems = []
    otherwise = "start a run with another name" + (
        "" if in_pod else ", or start this one from scratch with --overwrite"
    )
    if began.data not in (None, ours.data) and began.software == ours.software:
        problems.append(
            "spec.dataset: the data changed since the run began, and its checkpoints and figures belong to the "
            f"earlier data. Restore that, or {otherwise}; spec.dataset.revision pins a data set of the hub"
        )
    if None not in (began.model, ours.model) and began.model != ours.model:
        problems.append(
            f"spec.model.name: the run began with commit {began.model} of the model, and this is {ours.model}. "
            f"Set spec.model.revision in a run with another name, or {otherwise}"
        )
    return problems


def _software() -> str:
    found = versions()
    return ", ".join([f"data {code_version()[:12]}", *(f"{name} {found[name]}" for name in _DECIDES_ROWS)])
