"""Keeps the values of mounted Secrets out of what a pod says."""

from pathlib import Path
from typing import Any, TextIO

REDACTED = "[redacted]"
_SHORTEST = 8


class Scrubber:
    """Knows the values of the Secrets below a folder.

    Args:
        folder: one folder for each Secret, one file for each key; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._values: set[str] = set()
        for path in folder.glob("*/*"):
            if path.is_file():
                value = path.read_text(errors="ignore").strip()
                # An endpoint's address is no secret, and a short word would be found everywhere.
                if len(value) >= _SHORTEST and "://" not in value:
                    self._values.add(value)

    def scrub(self, text: str) -> str:
        """The text without them, should an error of some library have quoted one."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return text

    def stream(self, stream: TextIO) -> TextIO:
        """A stream that scrubs what is written to it: tracebacks and the lines of libraries go there unasked."""
        scrubbed: Any = _ScrubbedStream(stream, self)
        return scrubbed  # type: ignore[no-any-return]


class _ScrubbedStream:
    """Anything but writing is the stream's own."""

    def __init__(self, stream: TextIO, scrubber: Scrubber) -> None:
        self._stream = stream
        self._scrubber = scrubber

    def write(self, text: str) -> int:
        self._stream.write(self._scrubber.scrub(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
