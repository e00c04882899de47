"""Storage for what a run reads and writes: s3:// through boto3, file:// through plain files, with few operations.

``open_store`` is the only entry; boto3 is imported when the first s3:// store is opened.
"""

from dataclasses import replace
from pathlib import Path

from lmft_api.addresses import decoded
from lmft_api.wire.layout import MANIFEST
from lmft_job.errors import InvalidError
from lmft_job.storage.beneath import Walk, open_followed
from lmft_job.storage.folders import (
    UNNAMED_SECONDS,
    DamagedFolderError,
    FileEntry,
    Manifest,
    Needs,
    expand,
    fetch_folder,
    fetch_verified,
    link_or_copy,
    matches,
    publish_folder,
    put_folder,
    read_manifest,
    remove_unnamed,
    unnamed_keys,
)
from lmft_job.storage.reading import ReadingStore
from lmft_job.storage.store import (
    PURPOSES,
    Check,
    ObjectInfo,
    ObjectMissingError,
    Purpose,
    Store,
    disk_error,
    is_disk_full,
    join_key,
)

__all__ = [
    "MANIFEST",
    "UNNAMED_SECONDS",
    "Check",
    "DamagedFolderError",
    "FileEntry",
    "Manifest",
    "Needs",
    "ObjectInfo",
    "ObjectMissingError",
    "Purpose",
    "ReadingStore",
    "Store",
    "Walk",
    "disk_error",
    "expand",
    "fetch_folder",
    "fetch_verified",
    "is_disk_full",
    "join_key",
    "link_or_copy",
    "matches",
    "open_followed",
    "open_store",
    "publish_folder",
    "put_folder",
    "read_manifest",
    "remove_unnamed",
    "unnamed_keys",
]


def open_store(
    uri: str, credentials: Path | None = None, *, purpose: str = "output", field: str | None = None
) -> Store:
    """Opens the storage behind a URI; nothing is contacted yet (``probe_write`` and the other methods do).

    Args:
        uri: ``s3://bucket/prefix`` or ``file:///folder``; spaces may be literal or ``%20``.
        credentials: folder of files named AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and where needed
            AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, as a mounted Secret is. What is missing comes from the
            environment and botocore's other usual places.
        purpose: ``output``, ``dataset`` or ``model``: determines the fields and reasons in errors.
        field: the field to name for the URI if it is not the purpose's usual one, such as
            ``spec.dataset.files[1]``.

    Raises:
        InvalidError: a URI of another kind.
        RefusedError: the credentials folder is incomplete, or the endpoint is not an address.
    """
    what = PURPOSES[purpose] if field is None else replace(PURPOSES[purpose], uri_field=field)
    scheme, separator, rest = decoded(uri).partition("://")
    if "\0" in rest:
        raise InvalidError([f"{what.uri_field}: {uri!r} contains %00, which no name may"])
    if separator and scheme == "file":
        if not rest.startswith("/"):
            raise InvalidError([f"{what.uri_field}: {uri!r} must be an absolute path: file:///folder (three slashes)"])
        from lmft_job.storage.local import FileStore

        return FileStore(Path(rest), what)
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise InvalidError([f"{what.uri_field}: {uri!r} has no bucket; write s3://bucket/folder"])
        from lmft_job.storage.s3 import S3Store

        return S3Store.connect(bucket, prefix, what, credentials)
    raise InvalidError([f"{what.uri_field}: {uri!r} must begin with s3:// or file://"])
