"""Console output of a run: a live bar on a terminal, plain lines in a file or a pod's log."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text
from typing_extensions import override

from lmft_api.text.shown import one_line
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import EvaluationRow, Report, ResumePoint, SampleOutcome
from lmft_job.observers.eta import StepTimer, TransferPace
from lmft_job.observers.events import DataPrepared, Headline, Observer, StepDone, resume_note
from lmft_job.observers.terminal.spinner import Spinner
from lmft_job.process.transfers import Transfer
from lmft_job.report.formatting import (
    VERDICTS,
    before_and_after,
    clock,
    count,
    duration,
    figure,
    held_out,
    quality,
    quantity,
    verdict,
)

LABEL_WIDTH = 10
WORKING = {
    "imports": "loading libraries",
    "check": "checking storage",
    "load": "loading the model",
    "data": "reading and tokenising the data",
    "resume": "looking for a checkpoint",
    "baseline": "measuring the model before training",
    "training": "beginning to train",
    "evaluation": "evaluating",
    "merging": "preparing what is published",
    "samples": "sampling",
    "saving": "saving the model",
}
"""What a terminal says while a phase of the recipe takes its time; others are silent."""
SAMPLE_LENGTH = 280
"""Characters of a sample that are shown; the report has the whole text."""
PLAIN_EVERY_SECONDS = 15.0
"""Least seconds between two progress lines in a file."""


class ConsoleObserver(Observer):
    """Prints a run's events; use it as a context manager, so that the bar is removed before an error is printed.

    On a terminal a bar with loss, tokens/s, time left and the newest checkpoint follows the run; before it, a spinner
    with the seconds says what is done. Anywhere else every
    line is plain text: no colours, no cursor movement, nothing that wraps.

    Args:
        stream: where to print; None for stdout.
        now: returns seconds; replaced in tests.
        stopping: whether a stop was requested, which the bar then says.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        stream = stream or sys.stdout
        if hasattr(stream, "reconfigure"):
            # Characters that an old locale cannot encode are escaped instead of raising.
            stream.reconfigure(errors="backslashreplace")
        self._console = Console(file=stream, highlight=False, emoji=False, markup=False, soft_wrap=not stream.isatty())
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._now = now
        self._stopping = stopping
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._spinner: Spinner | None = None
        self._pace = StepTimer()
        self._epochs = 0
        self._checkpoint: int | None = None
        self._last_plain_line: float | None = None
        self._transfers: dict[str, TransferPace] = {}

    def __enter__(self) -> "ConsoleObserver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar or the spinner, if there is one."""
        self._stop_spinner()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @override
    def headline(self, headline: Headline) -> None:
        line = Text(f"  {one_line(headline.name)}", style="bold")
        model, device = one_line(headline.model), one_line(headline.device)
        line.append(f" · {headline.task.value} · {model} · {device}, {headline.precision}", style="not bold")
        self._print(line)

    @override
    def data(self, prepared: DataPrepared) -> None:
        data = prepared.figures
        rows = data.train_rows + data.eval_rows + data.dropped_rows
        parts = [
            f"{quantity(rows, prepared.noun)} → {count(data.train_rows)} train, {count(data.eval_rows)} held out"
            + (
                f", {count(data.dropped_rows)} dropped as empty" if data.dropped_rows and not data.conversations else ""
            ),
            quantity(data.train_tokens + (data.eval_tokens or 0), "tokens"),
        ]
        if data.conversations is not None and data.conversations.packs is not None:
            parts.append(f"{quantity(data.conversations.packs, 'packs')} of {data.conversations.max_length}")
        if data.train_blocks is not None and prepared.block_size is not None:
            parts.append(f"{quantity(data.train_blocks + (data.eval_blocks or 0), 'blocks')} of {prepared.block_size}")
        if data.train_targets is not None:
            parts.append("documents isolated")
        parts.append("prepared before, reused" if prepared.reused else duration(prepared.seconds))
        self._line("data", " · ".join(parts))

    @override
    def baseline(self, figures: EvaluationRow) -> None:
        self._line("before", quality(figures))
        self._pace.pause(self._now())

    @override
    def working(self, on: str) -> None:
        self._stop_spinner()
        if not self._live or on not in WORKING:
            return
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, shown=WORKING[on])
            return
        self._spinner = Spinner(self._console, WORKING[on])

    @override
    def transfer(self, transfer: Transfer) -> None:
        now = self._now()
        if transfer.ended:
            self._transfers.pop(transfer.name, None)
            if self._spinner is not None:
                self._spinner.say("")
            return
        pace = self._transfers.setdefault(transfer.name, TransferPace(transfer, now))
        if self._live:
            if self._spinner is not None:
                self._spinner.say(pace.words(transfer, now))
        elif now - pace.last_line >= PLAIN_EVERY_SECONDS:
            pace.last_line = now
            self._line("fetching", pace.words(transfer, now))

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    @override
    def phase(self, phase: JobPhase) -> None:
        if self._progress is not None and self._bar is not None and phase != JobPhase.TRAINING:
            self._progress.update(self._bar, shown=phase.value.lower())

    @override
    def step(self, done: StepDone) -> None:
        step, total, epoch = done.step, done.total, done.epoch
        now = self._now()
        self._pace.step(step, now)
        self._epochs = epochs_in_all(step, total, epoch)
        current = min(self._epochs, int(epoch - 1e-9) + 1)
        left = self._pace.seconds_left(step, total)
        facts = [
            f"loss {figure(done.loss, 3)}" if done.loss is not None else "",
            f"{count(done.tokens_per_second)} tok/s" if done.tokens_per_second else "",
            f"{clock(left)} left" if left is not None else "",
        ]
        shown = "  ".join(fact for fact in facts if fact)
        place = f"epoch {current}/{self._epochs}"
        if self._live:
            self._show_bar(place, step, total, shown)
        elif self._plain_line_is_due(step, total, now):
            self._console.print(f"  {place}  {count(step)}/{count(total)}  {shown}")

    @override
    def evaluation(self, evaluation: EvaluationRow) -> None:
        whole = abs(evaluation.epoch - round(evaluation.epoch)) < 1e-6
        place = f"epoch {round(evaluation.epoch)}" if whole else f"step {evaluation.step}"
        self._line(place, quality(evaluation))
        self._pace.pause(self._now())

    @override
    def checkpoint(self, step: int) -> None:
        self._checkpoint = step
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, saved=f"checkpoint {step} ✓")
        elif not self._live:
            self._line("saved", f"checkpoint {step}")

    @override
    def resumed(self, point: ResumePoint, saved_by: int) -> None:
        self.note(resume_note(point, saved_by))

    @override
    def straggler(self, rank: str) -> None:
        if rank:
            self.note(f"every step waits for {rank}")

    @override
    def note(self, text: str) -> None:
        self._line("note", text, style="yellow")

    @override
    def interrupted(self, step: int | None, again: str) -> None:
        self.close()
        kept = "no checkpoint to keep yet" if step is None else f"checkpoint {step} is saved"
        self._line("stopped", f"{kept}; resume with:", style="yellow")
        self._line("", again)

    @override
    def done(self, report: Report) -> None:
        self.close()
        self._figures(report)
        for sample in report.results.samples:
            self._sample(sample)
        results = report.results
        alone = results.adapter_uri if results.adapter_uri != results.model_uri else None
        for label, place in (("model", results.model_uri), ("adapter", alone), ("report", results.report_uri)):
            if place:
                self._line(label, place)

    def _figures(self, report: Report) -> None:
        rows = before_and_after(report.results)
        table = Table("", "before", "after", box=box.SQUARE if self._live else box.ASCII2, header_style="")
        for kind, before, after in rows:
            if after != "–":
                table.add_row(kind.label or kind.word, before, Text(after, style="bold"))
        if table.row_count:
            self._console.print(Padding(table, (0, 0, 0, 2), expand=False))
        if any("±" in after for _, _, after in rows):
            self._print(Text(f"  ± standard error over {held_out(report)}", style="dim" if self._live else ""))
        if remark := VERDICTS.get(verdict(report.results)):  # type: ignore[arg-type]
            self.note(f"{remark}, on {held_out(report)}")

    def _sample(self, sample: SampleOutcome) -> None:
        self._print(Text(f"  “{one_line(sample.prompt, SAMPLE_LENGTH)}”", style="italic"))
        for label, answer in (("before", sample.before), ("after", sample.after)):
            if answer is None:
                continue
            shown = one_line(answer, SAMPLE_LENGTH) or "(nothing)"
            if not self._live:
                self._console.print(f"    {label:<8}> {shown}")
                continue
            row = Table.grid(padding=(0, 1))
            row.add_column(width=LABEL_WIDTH - 1)
            row.add_column(overflow="fold")
            row.add_row(Text(f"{label:<8}▸", style="dim"), Text(shown))
            self._console.print(Padding(row, (0, 0, 0, 4), expand=False))

    def _show_bar(self, place: str, step: int, total: int, shown: str) -> None:
        if self._progress is None:
            self._stop_spinner()
            self._progress = Progress(
                TextColumn("  {task.fields[place]}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                _Facts(self._stopping, table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[saved]}", style="green"),
                console=self._console,
                refresh_per_second=5,
                transient=True,
            )
            saved = f"checkpoint {self._checkpoint} ✓" if self._checkpoint is not None else ""
            self._bar = self._progress.add_task("", total=total, place=place, shown=shown, saved=saved)
            self._progress.start()
        if self._bar is not None:
            self._progress.update(self._bar, completed=step, total=total, place=place, shown=shown)

    def _plain_line_is_due(self, step: int, total: int, now: float) -> bool:
        first = self._last_plain_line is None
        if not first and step != total and now - (self._last_plain_line or 0.0) < PLAIN_EVERY_SECONDS:
            return False
        self._last_plain_line = now
        return True

    def _line(self, label: str, text: str, style: str = "") -> None:
        line = Text(f"  {label:<{LABEL_WIDTH - 1}} ", style="dim" if self._live else "")
        line.append(one_line(text), style=f"not dim {style}".strip())
        self._print(line)

    def _print(self, line: Text) -> None:
        # Addresses and commands must stay in one piece when copied from a terminal.
        self._console.print(line, soft_wrap=True)


class _Facts(ProgressColumn):
    """Loss, speed and time left; once a stop is requested, that it is in progress."""

    max_refresh = None

    def __init__(self, stopping: Callable[[], bool], table_column: Column) -> None:
        super().__init__(table_column)
        self._stopping = stopping

    @override
    def render(self, task: Task) -> Text:
        if self._stopping():
            return Text("stopping: saving a checkpoint", style="yellow")
        return Text(str(task.fields["shown"]))


def epochs_in_all(step: int, total: int, epoch: float) -> int:
    """Number of epochs in ``total`` steps, from the epochs that ``step`` steps made; a partial one counts as one."""
    if step <= 0 or epoch <= 0:
        return 1
    estimate = epoch * total / step
    nearest = round(estimate)
    # The last batch of an epoch may be short, and the Trainer rounds the epoch, so 3.02 still means 3.
    return max(1, nearest if abs(estimate - nearest) <= 0.05 * max(1, nearest) else int(estimate) + 1)
