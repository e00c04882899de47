"""Keeps the values of mounted Secrets out of what a pod says."""

import re
from pathlib import Path
from typing import Any, TextIO

from lmft_api.result import Result

REDACTED = "[redacted]"
_SHORTEST = 8
_SETTING = re.compile(r"(AWS_)?(DEFAULT_)?(REGION|BUCKET|BUCKET_NAME|ENDPOINT|ENDPOINT_URL(_\w+)?)", re.IGNORECASE)
"""Keys of a Secret that stand beside the secret ones; addresses and messages hold their values rightly."""


class Scrubber:
    """Knows the values of the Secrets below a folder.

    Args:
        folder: one folder for each Secret, one file for each key; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._values: set[str] = set()
        for path in folder.glob("*/*"):
            if path.is_file() and not _SETTING.fullmatch(path.name):
                value = path.read_text(errors="ignore").strip()
                # An endpoint's address is no secret, and a short word would be found everywhere.
                if len(value) >= _SHORTEST and "://" not in value:
                    self._values.add(value)

    def scrub(self, text: str) -> str:
        """The text without them, should an error of some library have quoted one."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return text

    def result(self, result: Result) -> Result:
        """A result whose texts are scrubbed: message, adjustments, samples. What is not text stays as it is: in an
        address a later run would look for what was taken out, and a word of the contract would be none any more."""
        results = result.results
        if results is not None and results.samples:
            samples = [
                sample.model_copy(update={name: text and self.scrub(text) for name, text in sample})
                for sample in results.samples
            ]
            results = results.model_copy(update={"samples": samples})
        adjustments = result.adjustments and [self.scrub(text) for text in result.adjustments]
        scrubbed = {"message": self.scrub(result.message), "adjustments": adjustments, "results": results}
        return result.model_copy(update=scrubbed)

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
