"""What time it is for the operator: its own machine's clock, and a node's, may be wrong by any time."""

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from lmft_operator.domain.facts import PodFacts, by_our_clock
from lmft_operator.process.clock import DOUBT_SECONDS, Clock

DAY = 86_400.0
START = 1_800_000_000.0


class Machine:
    """A machine's two clocks, and an API server's."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.wall, self.steady, self.server = START + ahead, 100.0, START
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def passes(self, seconds: float) -> None:
        self.wall, self.steady, self.server = self.wall + seconds, self.steady + seconds, self.server + seconds

    def hears(self, seconds: float = 0.0) -> None:
        """The API server answers, for so many seconds and once at least."""
        until = self.server + seconds
        while True:
            self.clock.adjust(formatdate(int(self.server), usegmt=True))
            if self.server >= until:
                return
            self.passes(10)


@pytest.mark.parametrize("jump", [-DAY, -600, 600, DAY])
def test_a_jump_of_the_machines_clock_is_none_of_the_operators(jump: float) -> None:
    machine = Machine()
    machine.hears()
    machine.wall += jump
    machine.passes(7)
    assert machine.clock() == START + 7
    machine.hears(2 * DOUBT_SECONDS)
    assert machine.clock() == pytest.approx(machine.server)


@pytest.mark.parametrize("ahead", [-DAY, -1.0, 0.0, 1.0, 3600.0])
def test_the_first_answer_settles_by_how_much_the_machines_clock_was_wrong(ahead: float) -> None:
    machine = Machine(ahead)
    machine.hears()
    assert machine.clock() == pytest.approx(START, abs=1.5)


def test_an_api_server_whose_clock_jumps_is_believed_when_it_stays_with_it() -> None:
    machine = Machine()
    machine.hears()
    # for a moment, or when one of several says so
    for _ in range(5):
        machine.server += DAY
        machine.hears(DOUBT_SECONDS / 2)
        machine.server -= DAY
        machine.hears(20)
    assert machine.clock() == pytest.approx(machine.server, abs=1.5)
    # for good
    machine.server += DAY
    machine.hears(DOUBT_SECONDS + 20)
    assert machine.clock() == pytest.approx(machine.server, abs=1.5)


@pytest.mark.parametrize(
    "date",
    [None, "", "tomorrow", "Thu, 99 Foo 2026 25:61:61 GMT", "Fri, 31 Dec 99999 23:59:59 GMT", "\x00", "0" * 9999],
)
def test_a_date_that_cannot_be_read_says_nothing(date: str | None) -> None:
    machine = Machine()
    machine.clock.adjust(date)
    assert machine.clock() == START


POD = PodFacts("p", "p", "1", "r", 1, "Running", created=START)


@pytest.mark.parametrize(
    ("pod", "started", "finished"),
    [
        ({"started": START + 5}, START + 5, None),
        ({"started": START + 5, "finished": START + 65}, START + 5, START + 65),
        ({"started": START - 100, "finished": START - 40}, START - 100, START - 40),
        ({"started": START - DAY}, START, None),
        ({"started": START - DAY, "finished": START - DAY + 60}, START, START + 60),
        ({"started": START - DAY, "finished": START}, START, START + 3600),
        ({"started": START + DAY}, START + 3600, None),
        ({"started": START + DAY, "finished": START + DAY + 60}, START + 3540, START + 3600),
        ({"finished": START + DAY}, None, START + 3600),
        ({"finished": START - DAY}, None, START),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_node_whose_clock_is_wrong_by_a_day_costs_no_time(
    pod: dict[str, Any], started: float | None, finished: float | None
) -> None:
    found = by_our_clock(replace(POD, **pod), START + 3600)
    assert (found.started, found.finished) == (started, finished)
