"""``spec.output.pushToHub``: uploads the model's folder with the hub's own client, whose errors become ours here."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError

FIELD = "spec.output.pushToHub"
_WAITS_SECONDS = (1.0, 2.0, 4.0)
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


def push_to_hub(
    folder: Path,
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload the model",
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Make the repository if there is none, and put the folder into it in one commit.

    Args:
        folder: model, tokenizer and model card.
        repository: ``owner/name``.
        private: visibility of a repository made here; one that exists keeps its own.
        token: must be allowed to write; None takes what the hub's client finds by itself.
        message: of the commit.
        sleep: waits so many seconds between tries; another one in tests.

    Returns:
        Address of the commit; the same files a second time make no commit.

    Raises:
        RefusedError: the token may not write there, or the hub takes the content for wrong.
        UnavailableError: the hub does not answer, or not sensibly, after retries.
    """
    from huggingface_hub import HfApi

    # The endpoint is HF_ENDPOINT's, as for every client of the hub.
    api = HfApi(token=token)
    try:
        _persistent(lambda: api.create_repo(repository, private=private, exist_ok=True), sleep)
        commit = _persistent(
            lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message), sleep
        )
    except Exception as error:
        raise translate(error, repository) from error
    return str(commit.commit_url)


def translate(error: BaseException, repository: str) -> JobError:
    """What an error of the hub's client means for the run; looks through what it wraps."""
    from huggingface_hub import errors as hub

    chain = list(_chain(error))
    status = _status(chain)
    what = f'{FIELD}.repository "{repository}"'
    if any(isinstance(link, hub.OfflineModeIsEnabled) for link in chain):
        return RefusedError(
            Reason.STORAGE_ACCESS_DENIED, f"{what}: HF_HUB_OFFLINE forbids asking the hub. Unset it or drop pushToHub."
        )
    if status == 401:
        return RefusedError(
            Reason.STORAGE_ACCESS_DENIED,
            f"{what}: the hub does not accept the token. Put a valid one into the Secret that spec.hubTokenSecretRef "
            "names (on a laptop: `hf auth login`).",
        )
    if status in (402, 403, 404):
        return RefusedError(
            Reason.STORAGE_ACCESS_DENIED,
            f"{what}: the token may not write there (the hub answered {status}). Check owner and name, and that the "
            "token has the write role for them.",
        )
    if any(isinstance(link, hub.HFValidationError) for link in chain):
        return RefusedError(Reason.STORAGE_ACCESS_DENIED, f"{what} is no name that the hub takes: {_last_words(chain)}")
    if status is not None and 400 <= status < 500 and status not in _TRANSIENT:
        return RefusedError(
            Reason.STORAGE_ACCESS_DENIED, f"{what}: the hub refused the upload with {status}: {_last_words(chain)}"
        )
    said = f"it answered {status}" if status else "it cannot be reached"
    return UnavailableError(
        f"{what}: the hub did not take the model; {said} ({_last_words(chain)}). The model lies in the run's storage; "
        "another attempt uploads it again."
    )


def _persistent(call: Callable[[], Any], sleep: Callable[[float], None]) -> Any:
    """The call's answer; tried again after a passing failure, a few times."""
    for wait in _WAITS_SECONDS:
        try:
            return call()
        except Exception as error:
            if not _may_pass(error):
                raise
            sleep(wait)
    return call()


def _may_pass(error: BaseException) -> bool:
    import httpx2

    chain = list(_chain(error))
    status = _status(chain)
    if status is not None:
        return status in _TRANSIENT
    return any(isinstance(link, (httpx2.TransportError, TimeoutError)) for link in chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(chain: list[BaseException]) -> int | None:
    """Of the first HTTP answer in the chain."""
    codes = (getattr(getattr(error, "response", None), "status_code", None) for error in chain)
    return next((code for code in codes if isinstance(code, int)), None)


def _last_words(chain: list[BaseException]) -> str:
    lines = str(chain[0]).strip().splitlines() or [type(chain[0]).__name__]
    return lines[-1][:300]
