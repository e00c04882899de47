"""The spinner of commands that print only at their end."""

import io

import pytest

from lmft_job.observers.terminal.spinner import waiting
from lmft_job.process.transfers import Transfer


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_terminal_shows_what_is_worked_on_and_the_bytes_that_arrive_and_then_nothing() -> None:
    screen = Terminal()

    with waiting("reading the data", screen) as arrived:
        arrived(Transfer("questions\x1b[2J.csv", 5 << 20, 10 << 20))
        during = screen.getvalue()
        arrived(Transfer("questions\x1b[2J.csv", 10 << 20, 10 << 20, ended=True))

    assert "reading the data" in during
    assert "\x1b[2J" not in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K"), "the line is erased at the end"


def test_a_file_gets_nothing() -> None:
    log = io.StringIO()

    with waiting("reading the data", log) as arrived:
        arrived(Transfer("questions.csv", 5, 10))

    assert log.getvalue() == ""


def test_an_error_leaves_no_spinner() -> None:
    screen = Terminal()

    with pytest.raises(OSError, match="gone"), waiting("reading the data", screen):
        raise OSError("gone")

    assert screen.getvalue().endswith("\x1b[2K")
