"""Standard output and error of a run that outlive whoever reads them.

A pipe whose reader has gone, a terminal that was closed, a disk that is full: none of it is a reason to lose hours of
training. Whoever wants the figures finds them in the run's folder.
"""

import io
import os
import sys

from typing_extensions import override


class Steadfast(io.TextIOWrapper):
    """A text stream on a file descriptor that goes nowhere from the first write that fails.

    What an old locale cannot write is written as an escape, and ends nothing either.
    """

    @override
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._go_nowhere()
            return len(text)

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._go_nowhere()
            super().flush()  # what was kept back would come up again at the next write

    def _go_nowhere(self) -> None:
        """Put nothing behind the descriptor, so that libraries and child processes that write to it live on as well."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


def keep_going() -> None:
    """Make the process's standard streams steadfast; also where it was started without any (``>&-``)."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The first file that the run opens would have this number, and every print would go into it.
            while (opened := os.open(os.devnull, os.O_RDWR)) < number:
                pass
            if opened > number:
                os.close(opened)
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process
        if not isinstance(stream, io.TextIOWrapper):
            continue  # a stand-in of somebody's own, such as a test's
        line_buffered, encoding = stream.line_buffering, stream.encoding
        setattr(sys, name, Steadfast(stream.detach(), encoding, "backslashreplace", line_buffering=line_buffered))
