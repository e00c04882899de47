"""A straggler is a rank that is slower than the others again and again, not once."""

import pytest

from lmft_job.distributed.pace import Pace, StragglerWatch, straggler_words

EVEN, SLOW = [1.0, 1.1, 1.0, 0.9], [1.0, 1.1, 2.0, 0.9]


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        ([EVEN] * 5, [None] * 5),
        ([SLOW] * 4, [None, None, 2, 2]),
        ([SLOW, SLOW, EVEN, SLOW, SLOW, SLOW], [None, None, None, None, None, 2]),
        ([SLOW, SLOW, [2.0, 1.0, 1.0, 1.0], SLOW], [None] * 4),
        ([[1.0, 2.0]] * 3, [None, None, 1]),
        ([[1.0, 1.2]] * 3, [None] * 3),
        # Twice as slow, by less than anybody would notice.
        ([[0.001, 0.002]] * 3, [None] * 3),
    ],
)
def test_who_is_named(windows: list[list[float]], named: list[int | None]) -> None:
    watch = StragglerWatch()

    found = [watch.look(window) for window in windows]

    assert [found_ and found_[0] for found_ in found] == named


def test_how_much_slower_it_is_is_said_in_what_a_report_holds() -> None:
    watch = StragglerWatch()
    found = [watch.look(SLOW) for _ in range(3)][-1]

    assert found is not None
    assert straggler_words(found[0], "gpu-b", found[1]) == "rank 2 on gpu-b (1.9 times the median)"
    assert len(straggler_words(511, "n" * 253, float("inf"))) <= 64
    assert straggler_words(1, "", 2.0) == "rank 1 (2.0 times the median)"


def test_own_work_is_from_a_meeting_to_the_next_wait() -> None:
    clock = iter([10.0, 12.0, 20.0, 21.0, 30.0])
    pace = Pace(lambda: next(clock))
    pace.waits()  # nothing has begun
    pace.met()  # 10
    pace.waits()  # 12
    pace.met()  # 20
    pace.waits()  # 21
    pace.met()  # 30, and then an evaluation
    pace.interrupted()
    pace.waits()

    assert pace.take() == 3.0
    assert pace.take() == 0.0


def test_work_that_the_device_has_not_done_yet_counts_later() -> None:
    done = {0}
    marks = iter(range(10))
    pace = Pace(lambda: next(marks), lambda begin, end: 1.0 if end in done else None)
    for _ in range(2):
        pace.met()
        pace.waits()

    assert pace.take() == 0.0
    done.add(1)
    assert pace.take() == 1.0
    done.add(3)
    assert pace.take() == 1.0
