"""What a person sees of a run."""

import io
import re

import pytest
from rich.progress import Progress
from support.report_samples import causal_report, classification_report, demo_report

from lmft_api.tasks import Task
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import DatasetFigures, EvaluationRow, Report, ResumePoint, SampleOutcome
from lmft_job.observers.broadcast import Broadcast
from lmft_job.observers.eta import StepTimer
from lmft_job.observers.events import DataPrepared, Headline, Observer, StepDone
from lmft_job.observers.terminal.console import WORKING, ConsoleObserver, epochs_in_all
from lmft_job.process.transfers import Transfer

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
DATA = DataPrepared(
    DatasetFigures(
        train_rows=63, eval_rows=16, train_blocks=740, eval_blocks=183, train_tokens=100_000, eval_tokens=18_204
    ),
    block_size=128,
    seconds=0.4,
    noun="topics",
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def play(observer: Observer, clock: Clock, report: Report) -> None:
    """A whole run of 348 steps in three epochs, 0.2 s a step."""
    observer.headline(
        Headline("quickstart", Task.CAUSAL_LM, "gpt2 (4 layers, 3.6M parameters, from config)", "CPU", "FP32")
    )
    observer.data(DATA)
    observer.baseline(EvaluationRow(step=0, epoch=0.0, eval_loss=8.976, perplexity=7_912.2))
    observer.resumed(ResumePoint(step=12, lost_steps=3), 1)
    for step in range(13, 349):
        clock.seconds += 0.2
        observer.step(StepDone(step, 348, step / 116, 4.31, 1e-4, 9_240.0))
        if step % 116 == 0:
            clock.seconds += 5.0
            observer.evaluation(EvaluationRow(step=step, epoch=step / 116, eval_loss=5.36, perplexity=212.43))
        if step % 100 == 0:
            observer.checkpoint(step)
    observer.done(report)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain_run(clock: Clock, report: Report) -> str:
    stream = io.StringIO()
    with ConsoleObserver(stream, now=clock) as observer:
        play(observer, clock, report)
    return stream.getvalue()


def terminal_run(clock: Clock, report: Report, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with ConsoleObserver(stream, now=clock) as observer:
        play(observer, clock, report)
    return stream.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_file_gets_plain_lines_with_everything_a_person_needs(clock: Clock) -> None:
    written = plain_run(clock, demo_report())

    lines = written.splitlines()
    assert not CONTROL.search(written)
    assert lines[0] == ("  quickstart · CausalLM · gpt2 (4 layers, 3.6M parameters, from config) · CPU, FP32")
    assert lines[1] == ("  data      79 topics → 63 train, 16 held out · 118,204 tokens · 923 blocks of 128 · 0.4 s")
    assert lines[2] == "  before    perplexity 7,912"
    assert lines[3] == "  note      resumed from step 12, saved by attempt 1; 3 steps are repeated"
    for expected in (
        "  epoch 1   perplexity 212.4",
        "  saved     checkpoint 200",
        "  | perplexity | 7,912  | 88.30 |",
        "  “The import statement”",
        "    before  > qe Unpack 4 lambdaset",
        "    after   > is used to bind the name of the module in the local namespace",
        "  model     runs/default/quickstart/model",
        "  report    runs/default/quickstart/report.html",
    ):
        assert expected in lines


def test_progress_lines_in_a_file_are_few_and_tell_loss_speed_and_time_left(clock: Clock) -> None:
    written = plain_run(clock, demo_report())

    progress = [line for line in written.splitlines() if "tok/s" in line]
    assert 4 <= len(progress) <= 8
    assert progress[0].startswith("  epoch 1/3  13/348  loss 4.31  9,240 tok/s")
    assert re.search(r"epoch 2/3  \d+/348  loss 4\.31  9,240 tok/s  0:00:\d\d left", written)
    assert progress[-1].startswith("  epoch 3/3  348/348")


def test_a_terminal_shows_a_bar_with_the_newest_checkpoint(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal_run(clock, demo_report(), monkeypatch)

    text = without_codes(written)
    assert "\x1b[" in written
    assert "━" in text
    assert re.search(r"epoch [123]/3 .*\d+/348 loss 4\.31  9,240 tok/s", text)
    assert "checkpoint 300 ✓" in text
    assert "│ perplexity │ 7,912  │ 88.30 │" in text
    assert "runs/default/quickstart/report.html" in text


def test_a_terminal_says_what_takes_its_time_and_a_file_does_not(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for stream in (Terminal(), io.StringIO()):
        with ConsoleObserver(stream, now=clock) as observer:
            for phase in ("imports", "data", "stage", "baseline"):
                observer.working(phase)
                observer.note(f"within {phase}")
                observer.working("")
            observer.working("training")
            observer.step(StepDone(1, 10, 0.1, 4.0, 1e-4))
            observer.phase(JobPhase.EVALUATING)
            observer.working("")
            observer.working("samples")
        text = without_codes(stream.getvalue())
        shown = [words for words in WORKING.values() if words in text]
        assert all(f"within {phase}" in text for phase in ("imports", "data", "stage", "baseline"))
        if stream.isatty():
            assert shown == [WORKING[phase] for phase in ("imports", "data", "baseline", "training", "samples")]
            assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()[-40:]
        else:
            assert shown == []
            assert not CONTROL.search(stream.getvalue())


def test_the_bar_is_gone_and_the_cursor_back_when_a_run_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()

    def fail() -> None:
        with ConsoleObserver(stream, now=clock) as observer:
            observer.step(StepDone(1, 10, 0.1, 4.0, 1e-4))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()

    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_a_bar_says_that_a_stop_is_under_way(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    stop_requested = False
    with ConsoleObserver(stream, now=clock, stopping=lambda: stop_requested) as observer:
        observer.step(StepDone(1, 10, 0.1, 4.0, 1e-4))
        stop_requested = True
        before = len(stream.getvalue())
        observer.checkpoint(1)
        observer.interrupted(1, "lmft run x.yaml")
    rest = without_codes(stream.getvalue()[before:])
    assert "stopping: saving a checkpoint" in rest
    assert "left" not in rest
    assert "checkpoint 1 is saved; resume with:" in rest


def test_a_model_cannot_steer_the_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = SampleOutcome(prompt="p\x1b]0;owned\x07", before="\x1b[2J[bold]x[/bold]", after="a\r\nb\x9b31m")
    report = demo_report()
    report = report.model_copy(update={"results": report.results.model_copy(update={"samples": [sample]})})

    terminal = terminal_run(clock, report, monkeypatch)
    plain = plain_run(Clock(), report)

    assert "\x1b]0;" not in terminal
    assert "\x1b[2J" not in terminal
    assert "\x9b" not in terminal
    assert "[bold]x[/bold]" in plain
    assert not CONTROL.search(plain)


def test_a_classifier_is_judged_by_its_accuracy(clock: Clock) -> None:
    stream = io.StringIO()
    observer = ConsoleObserver(stream, now=clock)

    observer.baseline(EvaluationRow(step=0, epoch=0.0, eval_loss=0.6958, accuracy=0.5))
    observer.done(classification_report())

    assert "  before    accuracy 50.0 % · loss 0.6958" in stream.getvalue()
    assert "| accuracy  | 50.0 % | 84.3 % |" in stream.getvalue()
    assert "perplexity" not in stream.getvalue()


@pytest.mark.parametrize(("step", "kept"), [(214, "checkpoint 214 is saved"), (None, "no checkpoint to keep yet")])
def test_an_interrupted_run_says_how_to_go_on(clock: Clock, step: int | None, kept: str) -> None:
    stream = io.StringIO()
    observer = ConsoleObserver(stream, now=clock)

    observer.interrupted(step, "lmft run examples/quickstart.yaml")

    assert f"  stopped   {kept}; resume with:" in stream.getvalue()
    assert "lmft run examples/quickstart.yaml" in stream.getvalue()


def test_reused_data_and_dropped_rows_are_told(clock: Clock) -> None:
    stream = io.StringIO()
    figures = DatasetFigures(train_rows=8, eval_rows=2, dropped_rows=1, train_tokens=90)

    ConsoleObserver(stream, now=clock).data(DataPrepared(figures, block_size=None, seconds=0.1, reused=True))

    assert stream.getvalue() == (
        "  data      11 rows → 8 train, 2 held out, 1 dropped as empty · 90 tokens · prepared before, reused\n"
    )


def fetch(observer: ConsoleObserver, clock: Clock, seconds: int, total: int | None = 1_300_000_000) -> None:
    """A download of 35 MiB a second, heard of every half of a second."""
    observer.working("load")
    for half in range(2 * seconds):
        clock.seconds += 0.5
        observer.transfer(Transfer("team/mo\x1bdel", (half + 1) * 35 * 2**19, total))
    observer.transfer(Transfer("team/mo\x1bdel", 0, ended=True))
    observer.working("")


@pytest.mark.parametrize(
    ("seconds", "total", "lines"),
    [
        (10, 1_300_000_000, []),
        (
            36,
            1_300_000_000,
            [
                "  fetching  team/mo del 542 MiB of 1.2 GiB, 35 MiB/s",
                "  fetching  team/mo del 1.0 GiB of 1.2 GiB, 35 MiB/s",
            ],
        ),
        (16, None, ["  fetching  team/mo del 542 MiB, 35 MiB/s"]),
        (16, 5, ["  fetching  team/mo del 542 MiB, 35 MiB/s"]),  # more than was announced
    ],
)
def test_a_long_download_is_a_line_every_so_often_in_a_file(
    clock: Clock, seconds: int, total: int | None, lines: list[str]
) -> None:
    stream = io.StringIO()
    with ConsoleObserver(stream, now=clock) as observer:
        fetch(observer, clock, seconds, total)

    assert stream.getvalue().splitlines() == lines


def test_a_download_is_what_the_spinner_of_a_terminal_says_while_it_lasts(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "update", lambda self, task, description: said.append(description))

    with ConsoleObserver(Terminal(), now=clock) as observer:
        fetch(observer, clock, 2)

    assert said == [
        "team/mo del 18 MiB of 1.2 GiB",
        "team/mo del 35 MiB of 1.2 GiB",
        "team/mo del 52 MiB of 1.2 GiB, 35 MiB/s",
        "team/mo del 70 MiB of 1.2 GiB, 35 MiB/s",
        WORKING["load"],
    ]


def test_an_old_locale_loses_characters_rather_than_the_run(clock: Clock) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    with ConsoleObserver(stream, now=clock) as observer:
        play(observer, clock, causal_report())
    stream.flush()

    assert b"perplexity 7,912" in raw.getvalue()


def test_addresses_are_not_wrapped_in_a_file(clock: Clock) -> None:
    report = demo_report()
    place = "s3://bucket/" + "very-long-" * 40
    report = report.model_copy(update={"results": report.results.model_copy(update={"model_uri": place})})

    assert f"  model     {place}" in plain_run(clock, report).splitlines()


def test_all_observers_hear_every_event_in_order(clock: Clock) -> None:
    heard: list[str] = []

    class Listener(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattribute__(self, event: str) -> object:
            if event != "name" and not event.startswith("_"):
                heard.append(f"{self.name} {event}")
            return super().__getattribute__(event)

    observer = Broadcast([Listener("first"), Listener("second")])
    play(observer, clock, demo_report())
    observer.phase(JobPhase.SAVING)
    observer.working("data")
    observer.transfer(Transfer("gpt2", 1))
    observer.note("a note")
    observer.straggler("rank 3")
    observer.interrupted(None, "again")

    events = [name for name in vars(Observer) if not name.startswith("_")]
    assert {line.removeprefix("first ") for line in heard[::2]} == set(events)
    assert [line.replace("first", "second") for line in heard[::2]] == heard[1::2]


@pytest.mark.parametrize(
    ("step", "total", "epoch", "expected"),
    [(1, 348, 1 / 116, 3), (116, 348, 1.0, 3), (5, 5, 0.2, 1), (10, 25, 1.0, 3), (1, 1, 1.0, 1), (0, 10, 0.0, 1)],
)
def test_epochs_in_all_follow_from_a_step(step: int, total: int, epoch: float, expected: int) -> None:
    assert epochs_in_all(step, total, epoch) == expected


def test_time_left_leaves_evaluations_out() -> None:
    pace = StepTimer()
    pace.step(1, 0.0)
    assert pace.seconds_left(1, 11) is None

    pace.step(2, 2.0)
    pace.pause(60.0)
    pace.step(3, 62.0)

    assert pace.seconds_left(3, 11) == pytest.approx(16.0)
