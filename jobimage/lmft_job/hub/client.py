"""Translates what the Hugging Face hub's client raises, and retries failures that may be temporary.

Used by everything that talks to the hub: :mod:`lmft_job.models.sources`, :mod:`lmft_job.data.sources`,
:mod:`lmft_job.hub.push`.
"""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.process.watchdog import Pause
from lmft_job.storage import disk_error

T = TypeVar("T")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
WAITS_SECONDS = (1.0, 2.0, 4.0)
"""Seconds between tries; the client itself retries downloads of files, but not queries."""


@dataclass(frozen=True)
class HubRequest:
    """What was requested from the hub.

    Attributes:
        name: ``owner/name``.
        field: manifest field that names it.
        thing: ``model`` or ``data set``.
        revision: branch, tag or commit that was requested.
        revision_field: manifest field that names the revision.
        with_token: whether the manifest gives a token.
        not_found: reason if it does not exist.
        denied: reason if it may not be read.
    """

    name: str
    field: str
    thing: str
    revision: str | None
    revision_field: str
    with_token: bool
    not_found: Reason
    denied: Reason


def with_retries(call: Callable[[], T], sleep: Callable[[float], None] = time.sleep, paused: Pause = nullcontext) -> T:
    """The call's result; retried a few times after temporary failures.

    Args:
        call: asks the hub's client, which may take hours without reporting progress.
        sleep: waits between tries, in seconds; replaced in tests.
        paused: keeps the watchdog from watching meanwhile.
    """
    with paused():
        for wait in WAITS_SECONDS:
            try:
                return call()
            except Exception as error:
                if not _may_pass(error):
                    raise
                sleep(wait)
        return call()


def explained(error: BaseException, wanted: HubRequest) -> JobError | None:
    """What an error of the hub's client means for a run that wanted to read; looks through wrapped errors.

    Returns:
        None for an error that is not from the hub, nor from the connection to it.
    """
    from huggingface_hub import errors as hub

    chain, status = list(chain_of(error)), status_of(error)
    token = _token(wanted)
    who = token or "a reader without a token"
    what = f'{wanted.field} "{wanted.name}"' + (f" (revision {wanted.revision})" if wanted.revision else "")

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    full = next((link for link in chain if isinstance(link, OSError) and link.errno in _FULL), None)
    if full is not None:
        return disk_error(full, Path(full.filename or _cache()))
    # ``datasets`` raises a ConnectionError of its own that names the kind.
    if met(hub.OfflineModeIsEnabled) or any("OfflineModeIsEnabled" in str(link) for link in chain):
        return _switched_off(what, wanted)
    if met(hub.RevisionNotFoundError):
        return RefusedError(
            wanted.not_found,
            f"{what}: the hub has the {wanted.thing}, but not this revision. Check {wanted.revision_field}.",
        )
    if met(hub.GatedRepoError) or status == 403:
        return RefusedError(
            wanted.denied,
            f"{what}: the hub refuses it to {who}. Accept the {wanted.thing}'s terms on its page, or set a token that "
            "may read it in spec.hubTokenSecretRef (on a laptop: `hf auth login`).",
        )
    if status == 401 and token:
        return RefusedError(wanted.denied, f"{what}: the hub does not accept {token}. Put a valid token there.")
    # Without a token the hub answers 401 for missing repositories, so as not to reveal which private names exist.
    missing = (hub.RepositoryNotFoundError, hub.RemoteEntryNotFoundError, hub.HFValidationError)
    if status in (401, 404, 410) or (status is None and met(*missing)):
        return RefusedError(
            wanted.not_found,
            f"{what} is not on the hub, or is private and {who} may not see it. Check the spelling, or set "
            "spec.hubTokenSecretRef.",
        )
    if status is not None and status not in TRANSIENT and 400 <= status < 500:
        return RefusedError(wanted.denied, f"{what}: the hub refused it with {status} ({root_cause(error)}).")
    if status is not None or _no_answer(chain):
        said = f"it answered {status}" if status else "it cannot be reached"
        return UnavailableError(
            f"{what}: the hub does not serve it at the moment; {said}, after retries ({root_cause(error)}). Another "
            "attempt may succeed; behind a proxy or mirror set HTTPS_PROXY or HF_ENDPOINT."
        )
    if met(hub.LocalEntryNotFoundError) and _offline():
        return _switched_off(what, wanted)
    return None


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the first response in the chain."""
    codes = (getattr(getattr(link, "response", None), "status_code", None) for link in chain_of(error))
    return next((code for code in codes if isinstance(code, int)), None)


def root_cause(error: BaseException) -> str:
    """The root cause in one line."""
    root = list(chain_of(error))[-1]
    return (str(root).strip() or type(root).__name__).splitlines()[0][:200]


_FULL = {errno.ENOSPC, errno.EDQUOT}


def _switched_off(what: str, wanted: HubRequest) -> JobError:
    return RefusedError(
        wanted.not_found,
        f"{what} is not in this machine's cache, and HF_HUB_OFFLINE forbids asking the hub. Unset it, fill the cache "
        "first, or give files (file:// or s3://).",
    )


def _token(wanted: HubRequest) -> str | None:
    """Which token was sent to the hub."""
    from huggingface_hub import get_token

    if wanted.with_token:
        return "the token in spec.hubTokenSecretRef"
    return "this machine's token (HF_TOKEN, or `hf auth login`)" if get_token() else None


def _may_pass(error: BaseException) -> bool:
    status = status_of(error)
    return status in TRANSIENT if status is not None else _no_answer(list(chain_of(error)))


def _no_answer(chain: list[BaseException]) -> bool:
    # The hub's HTTP client has changed twice; its base class for "no response" kept its name. Deliberate offline mode
    # is a ConnectionError too, and not temporary.
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    return bool(kinds & {"TransportError", "ConnectionError", "TimeoutError"}) and "OfflineModeIsEnabled" not in kinds


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)
