"""Keeps secrets out of a pod's output: mounted values, and anything that looks like a credential.

A mounted value is matched whole, by line (a PEM key has many), and by window: a truncated sample quotes part of it.
kubelet replaces values when a Secret rotates, so the folder is read again; earlier values stay known.
"""

import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from lmft_api.text.redaction import REDACTED, is_random, redact
from lmft_api.text.shown import shown
from lmft_api.wire.result import Result
from lmft_job.errors import InvalidError

_SHORTEST = 8
_WINDOW = 16
_SETTING = re.compile(r"(AWS_)?(DEFAULT_)?(REGION|BUCKET|BUCKET_NAME|ENDPOINT|ENDPOINT_URL(_\w+)?)", re.IGNORECASE)
"""Keys of a Secret that are not secret themselves; addresses and messages may contain their values."""
_VARIABLE = re.compile(r"(.*_)?(TOKEN|SECRET|PASSWORD|SECRET_ACCESS_KEY|ACCESS_KEY_ID|API_KEY|PRIVATE_KEY)")
_NO_VALUE = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----|[{}\[\]\s,]*")
_KEY_BEGINS = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{1,100}|(Proc-Type|DEK-Info): .*|")
_NO_TEXT = re.compile(r"(.*_)?(uri|url|revision|fingerprint|hash|image|git|name|namespace|base_model|resumed_from)")
"""Fields used for lookups: an address with a part removed would not be found any more."""

M = TypeVar("M", bound=BaseModel)

_PRIVATE_FOLDERS = ("/etc/lmft", "/var/run/secrets", "/run/secrets", "/proc", "/sys", "/dev")
"""Folders of a pod that hold only secrets. A manifest may not read them, not even through a link on a volume."""


def refuse_private(path: Path, field: str) -> None:
    """Raises :class:`InvalidError` for a path in one of these folders, with the manifest field that names it."""
    if any(path.is_relative_to(folder) for folder in _PRIVATE_FOLDERS):
        raise InvalidError([f"{field}: {path} lies outside of what a manifest may read"])


class Scrubber:
    """Knows the values of the Secrets below a folder, and counts replacements.

    Args:
        folder: one folder for each Secret, one file for each key; need not exist. None if nothing is mounted.
        environment: variables whose names indicate a secret are included.
    """

    def __init__(self, folder: Path | None, environment: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._values: list[str] = []
        self._windows: frozenset[str] = frozenset()
        self._replaced = 0
        self._learn(value for name, value in environment.items() if _VARIABLE.fullmatch(name))
        self._look()

    @property
    def replaced(self) -> int:
        """Number of replacements so far, in all scrubbed text."""
        return self._replaced

    def scrub(self, text: str) -> str:
        """Replaces secrets in the text, in case an error of a library or a model has quoted one."""
        self._look()
        found = 0
        for value in self._values:
            if value in text:
                found += text.count(value)
                text = text.replace(value, REDACTED)
        text, parts = self._without_windows(text)
        text, shapes = redact(text)
        if found + parts + shapes:
            self._count(found + parts + shapes)
        return text

    def mark(self) -> str:
        """The placeholder for a secret; counts one replacement."""
        self._count(1)
        return REDACTED

    def model(self, model: M) -> M:
        """A pydantic model, with all strings scrubbed except addresses and version names."""
        changed = {name: self._any(name, value) for name, value in model}
        return model.model_copy(update=changed)

    def result(self, result: Result) -> Result:
        """A result with scrubbed strings: message, adjustments, samples. Other fields only allow fixed values, and
        stay unchanged. Includes the number of replacements."""
        results = result.results
        if results is not None and results.samples:
            results = results.model_copy(update={"samples": [self.model(sample) for sample in results.samples]})
        adjustments = result.adjustments and [self.scrub(text) for text in result.adjustments]
        scrubbed = {"message": self.scrub(result.message), "adjustments": adjustments, "results": results}
        return result.model_copy(update={**scrubbed, "redactions": max(self.replaced, result.redactions or 0) or None})

    def stream(self, stream: TextIO) -> TextIO:
        """A stream that scrubs what is written to it: tracebacks and the output of libraries."""
        scrubbed: Any = _ScrubbedStream(stream, self)
        return scrubbed  # type: ignore[no-any-return]

    def _count(self, more: int) -> None:
        with self._lock:
            self._replaced += more

    def _any(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and type(value) is str:
            return value if _NO_TEXT.fullmatch(name) else self.scrub(value)
        if isinstance(value, BaseModel):
            return self.model(value)
        if isinstance(value, list | tuple):
            return type(value)(self._any(name, part) for part in value)
        if isinstance(value, dict):
            return {key: self._any(str(key).rpartition(".")[2], part) for key, part in value.items()}
        return value

    def _look(self) -> None:
        """Read the Secrets, unless they are unchanged."""
        if self._folder is None:
            return
        files = [path for path in self._folder.glob("*/*") if path.is_file() and not _SETTING.fullmatch(path.name)]
        seen = tuple((str(path), stat.st_ino, stat.st_mtime_ns) for path in files if (stat := _stat(path)))
        if seen != self._seen:
            self._learn(_text(path) for path in files)
            self._seen = seen

    def _learn(self, texts: Any) -> None:
        values, windows = set(self._values), set(self._windows)
        for text in texts:
            lines = [line.strip().strip("\"',") for line in text.splitlines()]
            for value in (text.strip(), *lines):
                # An endpoint's address is not secret, and a short value would match everywhere.
                if len(value) >= _SHORTEST and "://" not in value and not _NO_VALUE.fullmatch(value):
                    values |= {value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}
            for word in re.split(r"[\s\"',]+", text):
                if len(word) > _WINDOW and "://" not in word and is_random(word):
                    windows |= {word[at : at + _WINDOW] for at in range(len(word) - _WINDOW + 1)}
        # Longest first: a value that contains another is replaced whole.
        self._values = sorted(values, key=len, reverse=True)
        self._windows = frozenset(windows)

    def _without_windows(self, text: str) -> tuple[str, int]:
        """The text without pieces of secrets of 16 or more characters, and how many there were."""
        if not self._windows or len(text) < _WINDOW:
            return text, 0
        kept, count, at, since = [], 0, 0, 0
        while at <= len(text) - _WINDOW:
            if text[at : at + _WINDOW] not in self._windows:
                at += 1
                continue
            end = at + _WINDOW
            while end < len(text) and text[end - _WINDOW + 1 : end + 1] in self._windows:
                end += 1
            kept += [text[since:at], REDACTED]
            count, at, since = count + 1, end, end
        return "".join([*kept, text[since:]]), count


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _text(path: Path) -> str:
    """A Secret's value; empty while kubelet replaces it."""
    try:
        return path.read_text(errors="ignore")
    except OSError:
        return ""


class _ScrubbedStream:
    """Delegates to the stream except for writing. Replaces control sequences for terminals and CI runners too."""

    def __init__(self, stream: TextIO, scrubber: Scrubber) -> None:
        self._stream = stream
        self._scrubber = scrubber
        self._key_lines: int | None = None

    def write(self, text: str) -> int:
        self._stream.write("".join(map(self._line, text.splitlines(keepends=True))))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def _line(self, line: str) -> str:
        """Scrubs one line; a private key spans many lines, and arrives in as many writes."""
        if self._key_lines is not None:
            if _KEY_LINE.fullmatch(line.strip()):
                self._key_lines += 1
                return self._scrubber.mark() + "\n" if self._key_lines == 1 else ""
            self._key_lines = None
        scrubbed = shown(self._scrubber.scrub(line))
        if scrubbed == line and _KEY_BEGINS.search(line):
            self._key_lines = 0
        return scrubbed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
