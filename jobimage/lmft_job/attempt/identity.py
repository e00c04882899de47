"""Which run owns a folder, and what it started with: a later attempt must resume with the same, or is refused."""

import json
from dataclasses import dataclass, replace
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
    """Content of ``run.json`` in a run's folder.

    Attributes:
        name: name of the run.
        specHash: hash of its spec, without the fields that may change.
        data: fingerprint of the prepared data; None in a file of an earlier version.
        model: commit of the model on the hub; with an adapter, and from elsewhere, a hash of its files; else None.
        day: first day of the run (UTC), an ISO date, where its chat template may write it.
        software: versions that prepared the data: other versions may give the same data another fingerprint.
        effectiveBatch: rows of an optimiser step; None where one process trained, with its own batch and passes.
        stage: Prepare if only preparations have claimed the folder so far; None in a file of an earlier version.
    """

    name: str
    specHash: str
    data: str | None = None
    model: str | None = None
    software: str | None = None
    day: str | None = None
    stage: str | None = None
    effectiveBatch: int | None = None

    def to_json(self) -> dict[str, str | int | None]:
        """As ``run.json`` holds it."""
        return {
            "name": self.name,
            "specHash": self.specHash,
            "data": self.data,
            "model": self.model,
            "software": self.software,
            "stage": self.stage,
            **({"day": self.day} if self.day else {}),
            **({"effectiveBatch": self.effectiveBatch} if self.effectiveBatch else {}),
        }


def read_claim(store: Store) -> RunIdentity | None:
    """The identity that an earlier attempt stored; None if there was none.

    Raises:
        InvalidError: the file is damaged.
    """

    def understand(note: dict[str, Any]) -> RunIdentity:
        known = [note.get(name) for name in ("data", "model", "software", "day", "stage")]
        if not all(value is None or isinstance(value, str) for value in known):
            raise TypeError("text wanted")
        rows = note.get("effectiveBatch")
        identity = RunIdentity(str(note["name"]), str(note["specHash"]), *known)
        return replace(identity, effectiveBatch=None if rows is None else int(rows))

    return read_note(store, RUN_MARKER, understand)


def claim(
    context: RunContext,
    store: Store,
    began: RunIdentity | None,
    data: str,
    model: str | None,
    day: str | None,
    rows: int | None = None,
) -> None:
    """Store which run owns the folder. Only after all checks: a manifest that was wrong may change.

    Args:
        context: context of the attempt.
        store: rooted at the run's folder.
        began: what an earlier attempt stored.
        data: fingerprint of the prepared data.
        model: see :attr:`RunIdentity.model`.
        day: first day of the run, where its chat template may write it.
        rows: see :attr:`RunIdentity.effectiveBatch`.

    Raises:
        InvalidError: data or model differ from those that the run started with.
    """
    ours = RunIdentity(
        context.run.name, spec_hash(context.run.spec), data, model, _software(), day, context.run.stage.value, rows
    )
    if began is not None:
        if problems := _changes(began, ours, in_pod=context.in_pod):
            raise InvalidError(problems)
        if began.data not in (None, data):
            context.observer.note("another version of LMFineTune than the run began with has prepared its data again")
    store.put_bytes(RUN_MARKER, json.dumps(ours.to_json()).encode())


def same_software(began: RunIdentity) -> bool:
    """Whether the run's data was prepared by this software's versions."""
    return began.software == _software()


def _changes(began: RunIdentity, ours: RunIdentity, *, in_pod: bool) -> list[str]:
    """What differs from the start of the run, with what to do."""
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
            f"spec.model.name: the run began with {_version(began.model)} of the model, and this is "
            f"{_version(ours.model)}. {_restore(began.model, otherwise)}"
        )
    return problems


def _version(model: str | None) -> str:
    return f"files of {model[:19]}…" if model and model.startswith("sha256:") else f"commit {model}"


def _restore(model: str | None, otherwise: str) -> str:
    if model and model.startswith("sha256:"):
        return f"An adapter goes with the weights that it was trained on: restore them, or {otherwise}"
    return f"Set spec.model.revision in a run with another name, or {otherwise}"


def _software() -> str:
    found = versions()
    return ", ".join([f"data {code_version()[:12]}", *(f"{name} {found[name]}" for name in _DECIDES_ROWS)])
