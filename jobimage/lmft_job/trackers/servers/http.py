"""JSON over HTTP with a server that is not trusted: answers are bounded in time and size, redirects not followed."""

import json
import time
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from typing_extensions import override

from lmft_job.trackers.tracker import TrackerError

_TIMEOUT_SECONDS, _ANSWER_SECONDS = 10.0, 30.0
_MOST_BYTES = 4 * 1024 * 1024


class _Stay(HTTPRedirectHandler):
    """A redirect would carry keys and metrics to an address that nobody has allowed."""

    @override
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


_OPENER = build_opener(_Stay)


def call(method: str, url: str, headers: Mapping[str, str], body: Any = None) -> dict[str, Any]:
    """The JSON object that a server answers with.

    Raises:
        TrackerError: no answer in time, a status other than 2xx, or no JSON object of a sensible size.
    """
    data = None if body is None else json.dumps(body).encode()
    always = {"Content-Type": "application/json", "User-Agent": "lmfinetune"}
    request = Request(url, data, {**headers, **always}, method=method)  # noqa: S310 - http(s)
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer = json.loads(_read(response))
    except HTTPError as error:
        with error:
            raise TrackerError(_words(error)) from error
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or error
        raise TrackerError(str(reason) or type(error).__name__) from error
    if not isinstance(answer, dict):
        raise TrackerError("the answer is not the JSON of such a server")
    return answer


def _read(response: Any) -> bytes:
    """A body; a server may send it byte by byte, or without end."""
    until, data = time.monotonic() + _ANSWER_SECONDS, b""
    while part := response.read1(65536):
        data += part
        if len(data) > _MOST_BYTES:
            raise TrackerError(f"the answer has more than {_MOST_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise TrackerError(f"the answer takes more than {_ANSWER_SECONDS:.0f} seconds")
    return data


def _words(error: HTTPError) -> str:
    """What a refusal says: MLflow's ``message``, ``error`` of others, or the first of ``errors`` of GraphQL."""
    if 300 <= error.code < 400:
        return f"the server answered {error.code}, a redirect, which is not followed; name the address itself"
    try:
        answer = json.loads(_read(error))
        message = answer.get("message") or answer.get("error") or answer["errors"][0]["message"]
    except (TrackerError, OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        message = None
    return f"the server answered {error.code}" + (f": {message}" if isinstance(message, str) and message else "")
