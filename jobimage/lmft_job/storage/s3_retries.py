"""Retries of a request to S3: until its tries are used up, with pauses that outlast a restart of the service.

botocore's standard mode waits 13 s in all for ten tries, and shares 35 retries among all parts in flight. A storage
service that is restarted takes longer, and a run that gives up meanwhile repeats everything since its last
checkpoint. Until a service has responded for the first time its address may be wrong, which should be reported soon:
in that case botocore's own pauses are used.
"""

import random
from typing import Any

from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.exceptions import HTTPClientError

_TOO_MANY = 429
_PASSING = frozenset({_TOO_MANY, 500, 502, 503, 504})
_FOLDER_LOST, _FOLDER_TRIES = "ExistingObjectIsDirectory", 4
"""Stores that keep objects as files say so as well where a deletion nearby has removed the folder meanwhile."""
_FIRST_SECONDS = 0.05
_FACTOR = 3.0
_LONGEST_SECONDS = 20.0


class Patience:
    """Handlers of one client's botocore events: which responses arrived, and whether a request is retried.

    Args:
        most: tries of a request, the first included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answered = False

    def register(self, client: Any) -> None:
        """Register before botocore's own handler, which decides if this one returns None."""
        client.meta.events.register("after-call.s3", self.answered)
        client.meta.events.register_first("needs-retry.s3", self.pause_seconds)

    def answered(self, http_response: Any, **_: object) -> None:
        """A request was completed; a response other than a transient error proves that the service exists."""
        if http_response.status_code not in _PASSING:
            self._answered = True

    def pause_seconds(
        self, response: Any = None, attempts: int = 1, caught_exception: Exception | None = None, **_: object
    ) -> float | None:
        """Seconds to wait before the next try; None leaves it to botocore. The parameter names are botocore's."""
        if attempts >= self._most or not self._may_pass(response, caught_exception, attempts):
            return None
        longest = min(_LONGEST_SECONDS, _FIRST_SECONDS * _FACTOR ** (attempts - 1))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no security purpose

    def _may_pass(self, response: Any, caught: Exception | None, attempts: int) -> bool:
        status = response[0].status_code if response is not None else None
        if response is not None and (response[1].get("Error") or {}).get("Code") == _FOLDER_LOST:
            return attempts < _FOLDER_TRIES
        # The standard mode decides by the error's code and does not retry a bare 429, which some services return.
        if status == _TOO_MANY:
            return True
        return self._answered and (status in _PASSING or isinstance(caught, NotConnectedError | HTTPClientError))
