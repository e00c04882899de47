"""Standard output and error of a run that survive the loss of their reader.

A closed pipe, a closed terminal, or a full disk must not cost hours of training. The figures are also in the run's
folder.
"""

import io
import os
import sys
from typing import Any, TextIO

from typing_extensions import override

from lmft_api.text.shown import shown


class ResilientStream(io.TextIOWrapper):
    """A text stream on a file descriptor that discards output from the first failed write on.

    Characters that an old locale cannot encode are escaped instead of raising.
    """

    @override
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._discard()
            return len(text)

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._discard()
            super().flush()  # buffered text would fail again at the next write

    def _discard(self) -> None:
        """Redirect the descriptor to nothing, so that libraries and child processes that write to it continue too."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


class ShownStream:
    """A stream on which finished lines are shown: safe also where a table has broken a line before ``::``.

    A terminal gets what is written, with its colours: texts have to be safe before they are laid out for it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write whole lines."""
        return self._stream.write(text if self._stream.isatty() else shown(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def use_resilient_streams() -> None:
    """Replace the process's standard streams by resilient ones; also if it was started without any (``>&-``)."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The first file that the run opens would get this number, and every print would be written to it.
            while (opened := os.open(os.devnull, os.O_RDWR)) < number:
                pass
            if opened > number:
                os.close(opened)
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as the process
        if not isinstance(stream, io.TextIOWrapper):
            continue  # a replacement by other code, such as a test's
        line_buffered, encoding = stream.line_buffering, stream.encoding
        setattr(sys, name, ResilientStream(stream.detach(), encoding, "backslashreplace", line_buffering=line_buffered))
