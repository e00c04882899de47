"""Brings a model's or tokenizer's folder to this machine: from the hub, from s3://, or from a folder that is here.

The only module that asks the hub for models; its errors become the run's own here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.storage import Check, fetch_folder, open_store

# What from_pretrained may ask for; weights in safetensors only, since pickles run code.
_WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "*.vocab", "*.bpe"]
_CODE = ["*.py"]
_NESTED = ["*/*"]


@dataclass(frozen=True)
class SourceFolder:
    """A model or tokenizer on this disk.

    Attributes:
        path: the folder.
        revision: commit on the hub, when it came from there.
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
) -> SourceFolder:
    """The folder of a model or tokenizer.

    Args:
        source: hub id, or s3:// or file:// address.
        destination: where an s3:// folder is put; the hub has its own cache.
        field: manifest field to blame, such as ``spec.model.name``.
        revision: branch, tag or commit on the hub.
        token: hub token; None takes what the hub's client finds by itself.
        credentials: folder with AWS_* files for s3://.
        with_code: fetch the repository's Python files too.
        weights: fetch the weights too, not only configuration and tokenizer.
        check: called now and then; what it raises ends the transfer.

    Raises:
        RefusedError: not found, or not allowed.
        UnavailableError: hub or storage does not answer.
    """
    if source.startswith("file://"):
        path = Path(source.removeprefix("file://"))
        if not path.is_dir():
            raise RefusedError(Reason.MODEL_NOT_FOUND, f'{field}: there is no folder "{path}". Check the path.')
        return SourceFolder(path)
    if source.startswith("s3://"):
        store = open_store(source, credentials, purpose="model", field=field)
        return SourceFolder(fetch_folder(store, "", destination, check))
    patterns = [p for p in _WANTED if weights or p != "*.safetensors"] + (_CODE if with_code else [])
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            source, revision=revision, token=token, allow_patterns=patterns, ignore_patterns=_NESTED
        )
    except Exception as error:
        raise hub_error(error, source, field, revision) from error
    path = Path(found)
    return SourceFolder(path, path.name)


def hub_error(error: BaseException, source: str, field: str, revision: str | None = None) -> JobError:
    """What an error of the hub's client means for the run; looks through what it wraps."""
    from huggingface_hub import errors as hub

    what = f'{field} "{source}"' + (f" (revision {revision})" if revision else "")
    chain = list(_chain(error))
    status = next((code for code in map(_status, chain) if code is not None), None)
    if any(isinstance(link, hub.GatedRepoError) for link in chain) or status == 403:
        return RefusedError(
            Reason.MODEL_ACCESS_DENIED,
            f"{what}: the hub refuses it to this token. Accept the model's terms on its page, or give a token that "
            "may read it in spec.hubTokenSecretRef (on a laptop: `hf auth login`).",
        )
    if any(isinstance(link, hub.RevisionNotFoundError) for link in chain):
        return RefusedError(
            Reason.MODEL_NOT_FOUND, f"{what}: the hub has the model, but not this revision. Check spec.model.revision."
        )
    missing = (hub.RepositoryNotFoundError, hub.RemoteEntryNotFoundError, hub.HFValidationError)
    if any(isinstance(link, missing) for link in chain) or status in (401, 404):
        return RefusedError(
            Reason.MODEL_NOT_FOUND,
            f"{what} is not on the hub, or the token may not see it. Check the spelling, or set "
            "spec.hubTokenSecretRef.",
        )
    if any(isinstance(link, hub.OfflineModeIsEnabled) for link in chain) or _offline():
        return RefusedError(
            Reason.MODEL_NOT_FOUND,
            f"{what} is not in this machine's cache, and HF_HUB_OFFLINE forbids asking the hub. Unset it, or give a "
            "folder (file:// or s3://).",
        )
    said = f"it answered {status}" if status else "it cannot be reached"
    return UnavailableError(
        f"{what}: the hub does not serve it now; {said} ({_last_words(chain)}). Another attempt may succeed; behind a "
        "proxy or mirror set HTTPS_PROXY or HF_ENDPOINT."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _last_words(chain: list[BaseException]) -> str:
    text = str(chain[-1]).strip() or type(chain[-1]).__name__
    return text.splitlines()[0][:200]
