"""Fetches a model's or tokenizer's folder: from the hub, from s3://, or from a local folder."""

import hashlib
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from lmft_api.addresses import decoded, in_storage
from lmft_api.reasons import Reason
from lmft_job.errors import RefusedError, UnavailableError
from lmft_job.hub import client
from lmft_job.hub.bars import bar_class
from lmft_job.process.secrets import refuse_private
from lmft_job.process.transfers import Told, Transfer, arriving, silent
from lmft_job.process.watchdog import Pause
from lmft_job.storage import Check, DamagedFolderError, Store, fetch_folder, fetch_verified, open_store

_WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "*.vocab", "*.bpe"]
_CODE = ["*.py"]
_NESTED = ["*/*"]


@dataclass(frozen=True)
class SourceFolder:
    """A model or tokenizer on this disk.

    Attributes:
        path: the folder.
        revision: commit on the hub, if it came from there.
    """

    path: Path
    revision: str | None = None


def fetch_source(
    source: str,
    destination: Path,
    *,
    field: str,
    revision: str | None = None,
    token: str | None = None,
    credentials: Path | None = None,
    with_code: bool = False,
    weights: bool = True,
    check: Check | None = None,
    paused: Pause = nullcontext,
    told: Told = silent,
) -> SourceFolder:
    """The folder of a model or tokenizer.

    Args:
        source: hub id, or s3:// or file:// address.
        destination: target of an s3:// folder; the hub has its own cache.
        field: manifest field to name in errors, such as ``spec.model.name``.
        revision: branch, tag or commit on the hub.
        token: hub token of the manifest; None uses the one that the hub's client finds by itself.
        credentials: folder with AWS_* files for s3://.
        with_code: fetch the repository's Python files too.
        weights: fetch the weights too, not only configuration and tokenizer.
        check: called periodically; an exception it raises ends the transfer.
        paused: keeps the watchdog from watching the hub's client, which does not call ``check``.
        told: is told what has arrived.

    Raises:
        RefusedError: not found, or not allowed.
        UnavailableError: hub or storage does not respond.
        InvalidError: a folder, or a link in it, that leads to the pod's secrets.
    """
    if source.startswith("file://"):
        path = Path(decoded(source).removeprefix("file://"))
        if not path.is_dir():
            raise RefusedError(Reason.MODEL_NOT_FOUND, f'{field}: there is no folder "{path}". Check the path.')
        for entry in (path, *path.rglob("*")):
            # A vocabulary that links to a key would end up in the model. (Path.resolve fails on links in a circle.)
            refuse_private(Path(os.path.realpath(entry)), field)
    if in_storage(source):
        store = open_store(source, credentials, purpose="model", field=field)
        with arriving(source, destination.parent, told, _size_of(store) if told is not silent else None):
            return SourceFolder(_from_storage(store, destination, field, check))
    patterns = [p for p in _WANTED if weights or p != "*.safetensors"] + (_CODE if with_code else [])
    from huggingface_hub import snapshot_download

    def download() -> str:
        return snapshot_download(
            source, revision=revision, token=token, allow_patterns=patterns, ignore_patterns=_NESTED,
            tqdm_class=bar_class(source, told),
        )  # fmt: skip

    wanted = client.HubRequest(
        source, field, "model", revision, "spec.model.revision", token is not None,
        not_found=Reason.MODEL_NOT_FOUND, denied=Reason.MODEL_ACCESS_DENIED,
    )  # fmt: skip
    try:
        path = Path(client.with_retries(download, paused=paused))
        told(Transfer(source, 0, ended=True))
    except Exception as error:
        raise client.explained(error, wanted) or UnavailableError(
            f'{field} "{source}" could not be fetched from the hub ({client.root_cause(error)}).'
        ) from error
    return SourceFolder(path, path.name)


def content_hash(folder: Path) -> str:
    """SHA-256 over names and content of a model's weights and configuration."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")]):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _size_of(store: Store) -> int:
    return sum(item.size for item in store.list())


def _from_storage(store: Store, destination: Path, field: str, check: Check | None) -> Path:
    """A folder written by LMFineTune, such as a checkpoint, is verified against its manifest; others are not."""
    try:
        if fetch_verified(store, "", destination, check):
            return destination
    except DamagedFolderError as error:
        raise RefusedError(
            Reason.MODEL_NOT_FOUND, f"{field}: {store.url('')} is damaged: {error}. Choose another model or run."
        ) from error
    return fetch_folder(store, "", destination, check)
