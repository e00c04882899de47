"""Translates boto3's errors into those of a run; the only place that does."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3ValidationError

from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.storage.store import ObjectMissingError, Purpose

ABSENT_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_WRONG_KEYS = {
    "InvalidAccessKeyId": "the access key is unknown there",
    "SignatureDoesNotMatch": "the secret key does not match the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "InvalidClientTokenId": "the access key is unknown there",
}
_WRONG_REGION = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_TRANSIENT = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError", "ServiceUnavailable", "Throttling"}
    | {"ConditionalRequestConflict", "OperationAborted", "TooManyRequests", "NoSuchUpload"}
)
_KEPT = "What was complete before is kept, and the next attempt resumes from there."


@contextmanager
def translated(purpose: Purpose, url: str, doing: str, endpoint: str) -> Iterator[None]:
    """Turns what boto3 raises inside the block into ``RefusedError`` or ``UnavailableError``.

    Args:
        purpose: determines the fields and reasons to name.
        url: the object or prefix in question.
        doing: what was being done, as a verb ("write").
        endpoint: the endpoint's address, named if it does not respond.
    """
    try:
        yield
    except ClientError as error:
        raise _of_answer(error, purpose, url, doing, endpoint) from error
    except (ResponseParserError, UnicodeError) as error:
        raise _unreachable(error, purpose, url, doing, endpoint) from error
    except RetriesExceededError as error:
        raise _unreachable(error.last_exception, purpose, url, doing, endpoint) from error
    except (S3ValidationError, S3DownloadFailedError) as error:  # parts that do not belong to one object
        raise _unreachable(error, purpose, url, doing, endpoint) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        node = (
            " The role of the node is not used, unless the chart's job.nodeCloudRole is true."
            if _node_role_is_off()
            else ""
        )
        raise RefusedError(
            purpose.denied,
            f"{purpose.uri_field}: cannot {doing} {url} without keys. Set {purpose.credentials_field} (a Secret with "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on a laptop these variables are used), or use a service "
            f"account bound to a cloud role.{node}",
        ) from error
    except ParamValidationError as error:
        raise RefusedError(purpose.not_found, f"{purpose.uri_field}: {url}: {_one_line(error)}.") from error
    except BotoCoreError as error:
        raise _unreachable(error, purpose, url, doing, endpoint) from error


def _node_role_is_off() -> bool:
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"


def code_of(error: ClientError) -> str:
    """The S3 error code, or the HTTP status as text if the response had no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the response, 0 if unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _of_answer(error: ClientError, purpose: Purpose, url: str, doing: str, endpoint: str) -> JobError:
    code, status = code_of(error), status_of(error)
    said = error.response.get("Error", {}).get("Message") or code
    attempt = f"{purpose.uri_field}: cannot {doing} {url}"
    check_keys = f"Check the keys in {purpose.credentials_field}"
    if code in _FULL or status == 507:
        return UnavailableError(f"{attempt}: no space left in that storage ({said}). {_KEPT}")
    if status == 429 or status >= 500 or code in _TRANSIENT:
        return UnavailableError(f"{attempt}: {endpoint} kept answering {status} ({said}) after all retries. {_KEPT}")
    if code in _WRONG_KEYS:
        return RefusedError(purpose.denied, f"{attempt}: {_WRONG_KEYS[code]} ({code}). {check_keys}.")
    if code == "NoSuchBucket":
        bucket = url.removeprefix("s3://").partition("/")[0]
        return RefusedError(
            purpose.not_found,
            f"{purpose.uri_field}: there is no bucket {bucket!r} at {endpoint}. Create it, or fix the address.",
        )
    if code in ABSENT_CODES:
        return ObjectMissingError(purpose.not_found, f"{purpose.uri_field}: there is no object {url} at {endpoint}.")
    if code in _WRONG_REGION:
        return RefusedError(
            purpose.denied,
            f"{attempt}: wrong region ({said}). Set AWS_REGION beside the keys, see {purpose.credentials_field}.",
        )
    if status in (401, 403):
        return RefusedError(
            purpose.denied,
            f"{attempt}: access denied ({said}). {check_keys}, and what they may do in {purpose.uri_field}.",
        )
    return RefusedError(purpose.denied, f"{attempt}: {endpoint} answered {status} {code}: {said}.")


def _unreachable(error: BaseException, purpose: Purpose, url: str, doing: str, endpoint: str) -> JobError:
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        what = "does not answer in time"
    elif isinstance(error, SSLError):
        what = (
            f"has a certificate that is not trusted here, or does not use TLS ({_one_line(error)}); see AWS_CA_BUNDLE"
        )
    elif isinstance(error, EndpointConnectionError):
        what = "cannot be reached"
    else:
        what = f"broke off ({_one_line(error)})"
    return UnavailableError(f"{purpose.uri_field}: cannot {doing} {url}: {endpoint} {what}, after all retries. {_KEPT}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
