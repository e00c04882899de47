"""Differences between S3-compatible services, detected from their responses."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from lmft_job.storage.s3_errors import code_of, status_of

log = logging.getLogger(__name__)

T = TypeVar("T")
_ALWAYS = "when_supported"


def with_checksums_on_demand(client: Any, send: Callable[[], T]) -> T:
    """Sends; if a bucket requires a checksum, as with Object Lock, sends again with one, as all later requests.

    Not from the start, since several services reject the newer checksums.
    """
    config = client.meta.config
    try:
        return send()
    except ClientError as error:
        if config.request_checksum_calculation == _ALWAYS or not _demands_checksum(error):
            raise
    log.info("%s requires checksums of what is written, so they are sent from now on", client.meta.endpoint_url)
    config.request_checksum_calculation = _ALWAYS
    return send()


def _demands_checksum(error: ClientError) -> bool:
    words = f"{code_of(error)} {error.response.get('Error', {}).get('Message', '')}".lower()
    return status_of(error) == 400 and any(word in words for word in ("content-md5", "contentmd5", "checksum"))


def conditions_are_ignored(put_again: Callable[[], object]) -> bool:
    """Whether a service replaces an existing object although it was to be stored only if absent.

    Args:
        put_again: a conditional put of a key that has an object already.
    """
    try:
        put_again()
    except ClientError as error:
        if status_of(error) in (409, 412) or code_of(error) == "NotImplemented":
            return False  # it honours conditions, or rejects them
        raise
    return True
