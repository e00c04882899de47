"""s3:// storage by boto3: any service that implements the S3 API.

Transfers use s3transfer (parallel parts, each retried, incomplete uploads aborted) with streams of our own at both
ends, so that a file's SHA-256 is computed in the one read that sends it, and a transfer can be stopped.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
from s3transfer.manager import TransferConfig, TransferManager
from typing_extensions import override
from urllib3.exceptions import ProtocolError

from lmft_api.addresses import readable
from lmft_job.errors import RefusedError, UnavailableError
from lmft_job.storage.local import written_whole
from lmft_job.storage.s3_answers import bound_answers, careful_session
from lmft_job.storage.s3_dialects import conditions_are_ignored, with_checksums_on_demand
from lmft_job.storage.s3_errors import ABSENT_CODES, code_of, status_of, translated
from lmft_job.storage.s3_retries import Patience
from lmft_job.storage.s3_streams import HashingFile, HashingReader, KnownSize, result_of
from lmft_job.storage.store import (
    MOST_OBJECTS,
    SMALL_BYTES,
    Check,
    ObjectInfo,
    Purpose,
    Store,
    disk_error,
    escapes,
    join_key,
    require_inside,
    small,
    too_many,
)

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
else:
    S3Client = Any

log = logging.getLogger(__name__)

_MEBIBYTE = 1024 * 1024
_ATTEMPTS = 10
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_BROKEN_BODY = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, ProtocolError, ConnectionError)
_UNCONDITIONAL: set[tuple[str, str]] = set()
"""Endpoint and bucket of services that ignore conditions; determined once per process."""
_MOST_LETTERS = 256 * _MEBIBYTE
"""Maximum number of characters in the keys of a listing."""
_MOST_IDLE_PAGES = 100
"""Maximum number of consecutive pages of a listing without a new key."""
_KEY_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class S3Settings:
    """Settings for tests and benchmarks; the defaults are measured by bench/checkpoint.py.

    Attributes:
        part_bytes: size of a file's parts, and size from which a file is sent in parts.
        connections: number of parts in flight.
        connect_seconds: timeout of a connection, for each try.
        read_seconds: timeout for the next byte of a response, for each try.
        attempts: tries of a request, the first included; AWS_MAX_ATTEMPTS overrides it.
        listing_page: objects requested per page; services return at most 1,000.
    """

    part_bytes: int = 8 * _MEBIBYTE
    connections: int = 10
    connect_seconds: float = _CONNECT_SECONDS
    read_seconds: float = _READ_SECONDS
    attempts: int = _ATTEMPTS
    listing_page: int = 1000


class S3Store(Store):
    """See ``lmft_job.storage.Store``."""

    def __init__(self, client: S3Client, bucket: str, prefix: str, purpose: Purpose, settings: S3Settings) -> None:
        self.purpose = purpose
        self.uri = readable(f"s3://{join_key(bucket, prefix)}")
        self._client = client
        self._bucket = bucket
        self._prefix = join_key(prefix)
        self._settings = settings
        self._endpoint = str(client.meta.endpoint_url)

    @classmethod
    def connect(
        cls, bucket: str, prefix: str, purpose: Purpose, credentials: Path | None, settings: S3Settings | None = None
    ) -> "S3Store":
        """A store whose client takes keys, endpoint and region from the credentials folder, else from the usual places.

        Raises:
            RefusedError: the folder is incomplete or the endpoint is not an address.
        """
        settings = settings or S3Settings()
        given = _read_credentials(credentials, purpose)
        session = boto3.session.Session(
            botocore_session=careful_session(),
            aws_access_key_id=given.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=given.get("AWS_SESSION_TOKEN"),
            region_name=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION"),
        )
        try:
            client = session.client(
                "s3",
                # botocore chooses path style by itself for an endpoint that is not Amazon's.
                endpoint_url=given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL"),
                region_name=session.region_name or "us-east-1",
                config=_client_config(settings),
            )
        except ValueError as error:
            raise RefusedError(
                purpose.denied,
                f"{purpose.uri_field}: AWS_ENDPOINT_URL is not an address such as https://storage.example:9000 "
                f"({error}); see {purpose.credentials_field}.",
            ) from error
        Patience(_attempts(settings)).register(client)
        bound_answers(client)
        return cls(client, bucket, prefix, purpose, settings)

    @override
    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        try:
            with path.open("rb") as file, self._translated("write", key):

                def send() -> str:
                    file.seek(0)
                    source = HashingReader(file, check)
                    size = os.fstat(file.fileno()).st_size
                    with self._transfers() as transfers:
                        future = transfers.upload(source, self._bucket, self._full(key), subscribers=[KnownSize(size)])
                        result_of(future, source)
                    return source.digest.hexdigest()

                return with_checksums_on_demand(self._client, send)
        except OSError as error:
            raise disk_error(error, path) from error

    @override
    def put_bytes(self, key: str, data: bytes) -> None:
        with self._translated("write", key):
            self._put(key, data)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._full(key)
        for _ in range(self._settings.attempts):
            with self._translated("write", key):
                try:
                    if not self._conditional():
                        return self._put_if_not_seen(key, data)
                    self._put(key, data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    if code_of(error) == "NotImplemented":
                        # A service without conditional puts. Each attempt has a folder of its own all the same.
                        return self._put_if_not_seen(key, data)
                    if status_of(error) not in (409, 412):
                        raise
            # Another writer was first, or an earlier try of this request whose response was lost: compare the content.
            present = self.get_bytes(key)
            if present is not None:
                return present == data
        raise UnavailableError(f"{self.purpose.uri_field}: {self.url(key)} keeps changing; another run writes there.")

    @override
    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        with written_whole(path) as file, self._translated("read", key):
            with self._transfers() as transfers:
                transfer: list[Any] = []
                sink = HashingFile(file, check, lambda: transfer[0].meta.size if transfer else None)
                transfer.append(transfers.download(self._bucket, self._full(key), sink))
                result_of(transfer[0], sink)
            return sink.hexdigest()

    @override
    def get_bytes(self, key: str) -> bytes | None:
        with self._translated("read", key):
            try:
                for _ in range(self._settings.attempts - 1):
                    try:
                        return self._read_small(key)
                    except _BROKEN_BODY:
                        continue  # botocore retries requests, not the reading of their responses
                return self._read_small(key)
            except ClientError as error:
                if code_of(error) in ABSENT_CODES:
                    return None
                raise

    def _read_small(self, key: str) -> bytes:
        body = self._client.get_object(Bucket=self._bucket, Key=self._full(key))["Body"]
        data = b""
        with closing(body):
            # Read to the end: only then botocore checks whether the response was truncated.
            while len(data) <= SMALL_BYTES and (chunk := body.read(SMALL_BYTES + 1 - len(data))):
                data += chunk
        return small(data, self.url(key), self.purpose)

    @override
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        root = f"{self._prefix}/" if self._prefix else ""
        found: dict[str, ObjectInfo] = {}
        letters = idle = 0
        with self._translated("list", prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=root + prefix, PaginationConfig={"PageSize": self._settings.listing_page}
            ):
                before = len(found)
                for item in self._infos(page.get("Contents", []), root, prefix):
                    letters += len(item.key)
                    found[item.key] = item
                idle = idle + 1 if len(found) == before else 0
                if len(found) > MOST_OBJECTS or letters > _MOST_LETTERS or idle > _MOST_IDLE_PAGES:
                    raise too_many(self.purpose, self.url(prefix))
        return sorted(found.values(), key=lambda item: item.key)

    def _infos(self, contents: Iterable[Any], root: str, prefix: str) -> Iterator[ObjectInfo]:
        """Objects of one page. A service may return keys that were not requested, and omit required fields."""
        for item in contents:
            whole = item.get("Key", "")
            key = whole.removeprefix(root)
            if not whole.startswith(root + prefix) or key.endswith("/"):  # consoles create such objects as "folders"
                continue
            if escapes(key):
                log.warning("%s has an object named %r, which is ignored", self.uri, key)
                continue
            written = item.get("LastModified")
            yield ObjectInfo(key, max(item.get("Size", 0), 0), written.timestamp() if written else 0.0)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        # One by one: the order is guaranteed, and not every service supports deleting many in one request.
        for key in keys:
            with self._translated("delete", key):
                try:
                    self._client.delete_object(Bucket=self._bucket, Key=self._full(key))
                except ClientError as error:
                    if code_of(error) not in ABSENT_CODES:
                        raise

    @override
    def abort_incomplete(self, prefix: str = "") -> int:
        root = f"{self._prefix}/" if self._prefix else ""
        aborted = 0
        with self._translated("list incomplete uploads of", prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=root + prefix
            )
            for page in islice(pages, _MOST_IDLE_PAGES):  # the next attempt removes what is left after these
                for upload in page.get("Uploads", []):
                    # A service may return keys that were not requested.
                    aborted += upload["Key"].startswith(root + prefix) and self._aborted(upload)
        return aborted

    def _aborted(self, upload: Any) -> bool:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as error:
            if code_of(error) not in ABSENT_CODES | {"NoSuchUpload"}:
                raise
            return False
        return True

    @override
    def probe_write(self) -> None:
        # A fixed name, so that whatever a killed process leaves is removed by the next probe.
        self.put_bytes("probe", b"probe")
        with self._translated("write", "probe"):
            if self._conditional() and conditions_are_ignored(lambda: self._put("probe", b"probe", IfNoneMatch="*")):
                log.warning(
                    "%s ignores If-None-Match in bucket %s: before an object that is written once, it is looked for "
                    "instead, which does not keep two writers at the same moment apart",
                    self._endpoint,
                    self._bucket,
                )
                _UNCONDITIONAL.add((self._endpoint, self._bucket))
        self.delete(["probe"])

    @override
    def child(self, prefix: str) -> "S3Store":
        below = join_key(self._prefix, require_inside(prefix.strip("/"), self.purpose))
        return S3Store(self._client, self._bucket, below, self.purpose, self._settings)

    @override
    def url(self, key: str) -> str:
        return readable(f"s3://{join_key(self._bucket, self._prefix, key)}")

    def _put(self, key: str, data: bytes, **conditions: Any) -> None:
        """Stores one object in one request."""
        with_checksums_on_demand(
            self._client,
            lambda: self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data, **conditions),
        )

    def _conditional(self) -> bool:
        return (self._endpoint, self._bucket) not in _UNCONDITIONAL

    def _put_if_not_seen(self, key: str, data: bytes) -> bool:
        present = self.get_bytes(key)
        if present is None:
            self.put_bytes(key, data)
        return present in (None, data)

    def _full(self, key: str) -> str:
        return join_key(self._prefix, require_inside(key, self.purpose))

    def _translated(self, doing: str, key: str) -> Any:
        return translated(self.purpose, self.url(key), doing, self._endpoint)

    def _transfers(self) -> Any:
        """A manager for one file; Any because its stubs require files where it accepts any stream."""
        part, connections = self._settings.part_bytes, self._settings.connections
        return TransferManager(
            self._client,
            TransferConfig(
                multipart_threshold=part,
                multipart_chunksize=part,
                max_request_concurrency=connections,
                # Parts to send wait in memory: at most this many.
                max_in_memory_upload_chunks=connections + 2,
                num_download_attempts=self._settings.attempts,
                io_chunksize=_MEBIBYTE,
                # Received parts wait in memory for the disk: no more of them than of parts to send.
                max_io_queue_size=(connections + 2) * max(part // _MEBIBYTE, 1),
            ),
        )


def _client_config(settings: S3Settings) -> Config:
    options: dict[str, Any] = {
        "connect_timeout": settings.connect_seconds,
        "read_timeout": settings.read_seconds,
        "max_pool_connections": settings.connections + 2,
        "tcp_keepalive": True,
        "retries": {
            "mode": "standard",
            "total_max_attempts": _attempts(settings),
        },
    }
    # Only required checksums: several services reject the newer ones. TLS or the signed body protects the transfer,
    # our SHA-256 in MANIFEST.json everything else.
    if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        options["request_checksum_calculation"] = "when_required"
    if "AWS_RESPONSE_CHECKSUM_VALIDATION" not in os.environ:
        options["response_checksum_validation"] = "when_required"
    return Config(**options)


def _attempts(settings: S3Settings) -> int:
    return int(os.environ.get("AWS_MAX_ATTEMPTS") or settings.attempts)


def _read_credentials(folder: Path | None, purpose: Purpose) -> dict[str, str]:
    """The files of a mounted Secret by name; only AWS_* files are read."""
    if folder is None:
        return {}
    try:
        given = {path.name: path.read_text().strip() for path in sorted(folder.glob("AWS_*")) if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(purpose.denied, f"{purpose.credentials_field}: cannot read the keys: {error}.") from error
    lacking = [name for name in _KEY_NAMES if not given.get(name)]
    if len(lacking) == 1:
        raise RefusedError(purpose.denied, f"{purpose.credentials_field}: the Secret lacks {lacking[0]}.")
    return given
