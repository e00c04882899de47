"""``spec.output.pushToHub``: uploads the model's folder with the hub's own client, and translates its errors."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.hub import client
from lmft_job.process.watchdog import Pause

FIELD = "spec.output.pushToHub"


def check_push(
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    paused: Pause = nullcontext,
) -> None:
    """Create the repository if it does not exist, and check before training that the token may write to it.

    Args:
        repository: ``owner/name``.
        private: visibility of a repository created here.
        token: must have write permission; None uses the one that the hub's client finds by itself.
        sleep: waits between tries, in seconds; replaced in tests.
        paused: keeps the watchdog from watching while the hub is asked.

    Raises:
        RefusedError: the token may not write there.
        UnavailableError: the hub does not respond, or not validly, after retries.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        client.with_retries(lambda: api.create_repo(repository, private=private, exist_ok=True), sleep, paused)
        client.with_retries(lambda: api.auth_check(repository, write=True), sleep, paused)
    except Exception as error:
        raise translate(error, repository, "Nothing was done yet; another attempt asks again.") from error


def push_to_hub(
    folder: Path,
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload the model",
    sleep: Callable[[float], None] = time.sleep,
    paused: Pause = nullcontext,
) -> str:
    """Create the repository if it does not exist, and upload the folder to it in one commit.

    Args:
        folder: model, tokenizer and model card.
        repository: ``owner/name``.
        private: visibility of a repository created here; an existing one keeps its own.
        token: must have write permission; None uses the one that the hub's client finds by itself.
        message: commit message.
        sleep: waits between tries, in seconds; replaced in tests.
        paused: keeps the watchdog from watching while the hub is asked.

    Returns:
        Address of the commit; uploading the same files again makes no commit.

    Raises:
        RefusedError: the token may not write there, or the hub rejects the content.
        UnavailableError: the hub does not respond, or not validly, after retries.
    """
    from huggingface_hub import HfApi

    # The endpoint is HF_ENDPOINT's, as for every client of the hub.
    api = HfApi(token=token)
    try:
        client.with_retries(lambda: api.create_repo(repository, private=private, exist_ok=True), sleep, paused)
        commit = client.with_retries(
            lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message), sleep, paused
        )
    except Exception as error:
        kept = "The model is in the run's storage; another attempt uploads it again."
        raise translate(error, repository, kept) from error
    return str(commit.commit_url)


def translate(error: BaseException, repository: str, kept: str) -> JobError:
    """Translates an error of the hub's client in a write; ``kept`` ends the message of a temporary failure."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    chain, status, said = list(client.chain_of(error)), client.status_of(error), client.root_cause(error)
    what = f'{FIELD}.repository "{repository}"'
    if any(isinstance(link, OfflineModeIsEnabled) for link in chain):
        return RefusedError(
            Reason.STORAGE_ACCESS_DENIED,
            f"{what}: HF_HUB_OFFLINE forbids asking the hub. Unset it or remove pushToHub.",
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
    if any(isinstance(link, HFValidationError) for link in chain):
        return RefusedError(Reason.STORAGE_ACCESS_DENIED, f"{what} is not a name that the hub accepts: {said}")
    if status is not None and 400 <= status < 500 and status not in client.TRANSIENT:
        return RefusedError(Reason.STORAGE_ACCESS_DENIED, f"{what}: the hub refused the upload with {status}: {said}")
    how = f"it answered {status}" if status else "it cannot be reached"
    return UnavailableError(f"{what}: the hub does not accept the model at the moment; {how} ({said}). {kept}")
