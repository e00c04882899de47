"""A store that is read and not written, for the processes of a run other than the first."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lmft_job.storage.store import Check, ObjectInfo, Store


class ReadingStore:
    """Passes reads on; what would be written is left to the process that writes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri, self.purpose = store.uri, store.purpose

    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """Not stored; the SHA-256 is the file's."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put_bytes(self, key: str, data: bytes) -> None:
        """Not stored."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Not stored; as if it had been."""
        return True

    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """As the store."""
        return self._store.get_file(key, path, check)

    def get_bytes(self, key: str) -> bytes | None:
        """As the store."""
        return self._store.get_bytes(key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """As the store."""
        return self._store.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """Nothing is removed."""

    def abort_incomplete(self, prefix: str = "") -> int:
        """Nothing is removed."""
        return 0

    def probe_write(self) -> None:
        """Nothing is written."""

    def child(self, prefix: str) -> Store:
        """The same storage, rooted at a prefix below; read, too."""
        return ReadingStore(self._store.child(prefix))

    def url(self, key: str) -> str:
        """As the store."""
        return self._store.url(key)
