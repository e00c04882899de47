"""Bounds and checks a storage service's responses before boto3 processes them.

boto3 trusts responses: an endless one fills the memory, one that does not match the service model raises any
exception at all, and one without a length makes a transfer wait forever. Here each becomes botocore's own
``ResponseParserError``.
"""

import re
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from botocore.parsers import ResponseParser, ResponseParserError, ResponseParserFactory
from botocore.session import Session
from typing_extensions import override
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import ReadTimeoutError as SlowError

_MOST_BYTES = 16 * 1024 * 1024
_MOST_TAGS = 500_000
"""Maximum elements of one response, each an object while it is read; a listing of 1,000 objects has about 30,000."""
_LARGEST_OBJECT = 50 * 1024**4
"""Bytes; S3's own bound."""
_ASKED = re.compile(r"bytes=(?P<first>[0-9]+)-(?P<last>[0-9]*)")
_RANGE = re.compile(r"bytes [0-9]{1,15}-[0-9]{1,15}/(?P<size>[0-9]{1,15})", re.ASCII)


def careful_session() -> Session:
    """A botocore session whose parsers raise only ``ResponseParserError``."""
    session = Session()
    session.register_component("response_parser_factory", _CarefulFactory())
    return session


def bound_answers(client: Any) -> None:
    """From now on every response except an object's content is bounded, and has the fields that boto3 relies on."""
    endpoint = client._endpoint  # botocore has no public access to what sends its requests
    endpoint.http_session = _BoundedSession(endpoint.http_session)
    client.meta.events.register("before-parameter-build.s3.GetObject", _remember_range)
    client.meta.events.register("after-call.s3", _require_whole)


class _CarefulFactory(ResponseParserFactory):
    @override
    def create_parser(self, protocol_name: str) -> Any:
        return _CarefulParser(super().create_parser(protocol_name))


class _CarefulParser:
    def __init__(self, parser: ResponseParser) -> None:
        self._parser = parser

    def parse(self, response: Any, shape: Any) -> Any:
        """As the parser's own; every error in it is treated as an invalid response."""
        body = response["body"]
        if isinstance(body, bytes) and body.count(b"<") > _MOST_TAGS:
            raise ResponseParserError(f"an answer of more than {_MOST_TAGS:,} XML tags")
        try:
            return self._parser.parse(response, shape)
        except ResponseParserError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise ResponseParserError(f"an answer that is not S3's: {type(error).__name__}: {words}") from error


class _BoundedSession:
    """Sends requests, and reads the response itself, up to a limit, unless it is an object's content."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        streamed, request.stream_output = request.stream_output, True
        response: Any = self._session.send(request)
        if streamed and response.status_code < 300:
            return response
        bounded = AWSResponse(response.url, response.status_code, response.headers, _Bounded(response.raw))
        # An exception of botocore, which decides by its type whether to retry.
        try:
            bounded.content  # noqa: B018 - reads it, once
        except SlowError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=error) from error
        except (HTTPError, OSError) as error:
            raise HTTPClientError(error=error) from error
        return bounded

    def close(self) -> None:
        self._session.close()


class _Bounded:
    """The body of a response, as AWSResponse reads it."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Any:
        """The body in chunks."""
        left = _MOST_BYTES
        for piece in self._raw.stream():
            left -= len(piece)
            if left < 0:
                self._raw.close()
                raise ResponseParserError(f"an answer of more than {_MOST_BYTES >> 20} MiB")
            yield piece


def _remember_range(params: Any, context: dict[str, Any], **_: object) -> None:
    context["lmft_range"] = params.get("Range", "")


def _require_whole(parsed: Any, model: Any, http_response: Any, context: dict[str, Any], **_: object) -> None:
    """Fields that s3transfer and this package rely on in a successful response."""
    if http_response.status_code >= 300:
        return
    check = _CHECKS.get(model.name)
    problem = check(parsed) if check else None
    if model.name == "GetObject" and not problem:
        problem = _body(parsed["ContentLength"], http_response.headers, context.get("lmft_range", ""))
    if problem:
        raise ResponseParserError(f"an answer to {model.name} {problem}")


def _object(parsed: Any) -> str | None:
    length, part = parsed.get("ContentLength"), parsed.get("ContentRange")
    if not isinstance(length, int) or length < 0:
        return "without a Content-Length"
    known = _RANGE.fullmatch(part) if part else None
    if part and not known:
        return f"with the Content-Range {part[:60]!r}"
    size = int(known["size"]) if known else length
    return f"that promises {size:,} bytes" if size > _LARGEST_OBJECT else None


def _body(length: int, headers: Any, asked: str) -> str | None:
    if "transfer-encoding" in headers:
        return "without a Content-Length"  # the header has no meaning beside it
    wanted = _ASKED.fullmatch(asked)
    if wanted and wanted["last"] and length > int(wanted["last"]) - int(wanted["first"]) + 1:
        return f"of {length:,} bytes, which is more than was asked for"
    return None


def _listing(parsed: Any) -> str | None:
    keys = [item.get("Key", "") for item in parsed.get("Contents", [])]
    return None if all(isinstance(key, str) for key in keys) else "with an object of several names"


def _uploads(parsed: Any) -> str | None:
    values = [upload.get(name) for upload in parsed.get("Uploads", []) for name in ("Key", "UploadId")]
    return None if all(isinstance(value, str) and value for value in values) else "with an upload that has no name"


def _named(name: str) -> Any:
    return lambda parsed: None if isinstance(parsed.get(name), str) and parsed[name] else f"without {name}"


_CHECKS = {
    "GetObject": _object,
    "ListObjectsV2": _listing,
    "ListMultipartUploads": _uploads,
    "CreateMultipartUpload": _named("UploadId"),
    "UploadPart": _named("ETag"),
}
