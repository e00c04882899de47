"""Small JSON files that a run keeps in its folder, and that people may have edited."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from lmft_api.wire.versions import FIRST_FORMAT, NewerFormatError, require_format
from lmft_job.errors import InvalidError, NewerReleaseError
from lmft_job.storage import Store

T = TypeVar("T")


def read_note(store: Store, key: str, understand: Callable[[dict[str, Any]], T]) -> T | None:
    """The file at a key of the run's folder; None if there is none.

    Args:
        store: rooted at the run's folder.
        key: key of the file.
        understand: parses its content; raises KeyError, TypeError or ValueError if the content is not as it was
            written.

    Raises:
        InvalidError: its content is not as it was written.
        NewerReleaseError: only a newer release can read it.
    """
    data = store.get_bytes(key)
    if data is None:
        return None
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise TypeError("no object")
        require_format(content, FIRST_FORMAT, store.url(key))
        return understand(content)
    except NewerFormatError as error:
        raise NewerReleaseError(str(error)) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InvalidError([f"spec.output.uri: {store.url(key)} is damaged; remove it and run again"]) from error
