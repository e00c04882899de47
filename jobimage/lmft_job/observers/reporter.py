"""Live progress to the operator, in the Kubeflow Trainer's wire format, from a separate thread.

The built-in callback of transformers posts within the training step, so that a server that does not respond costs
seconds per step; here a step only stores its figures, and the thread sends the latest periodically.
"""

import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from typing_extensions import override

from lmft_api.figures import FIGURES
from lmft_api.text.times import now
from lmft_api.wire.progress import (
    CA_VARIABLE,
    SERVER_URL_VARIABLE,
    TOKEN_VARIABLE,
    JobPhase,
    Metric,
    MetricName,
    ProgressMessage,
    TrainerStatus,
)
from lmft_api.wire.report import EvaluationRow, ResumePoint
from lmft_job.observers.background import Background
from lmft_job.observers.eta import StepTimer
from lmft_job.observers.events import DataPrepared, Headline, Observer, StepDone

INTERVAL_SECONDS = 10.0
TIMEOUT_SECONDS = 5.0
LAST_TIMEOUT_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
SPACING_SECONDS = 0.6
"""Least seconds between two posts: updates close together are sent as one; the operator accepts two a second."""

_AS_SENT = tuple(reversed(FIGURES))
"""Order of the figures in progress reports."""


class ProgressState:
    """The latest figures and values computed from them; uses only the time passed to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._metrics: dict[str, str] = {}
        self._pace = StepTimer()
        self._step = self._total = 0

    def step(self, done: StepDone) -> None:
        """An optimiser step is done."""
        # Only steps of this process count: a resumed run did not do the earlier ones in this time.
        self._pace.step(done.step, self._clock())
        self._step, self._total = done.step, done.total
        self.put(
            current_step=done.step,
            total_steps=done.total,
            current_epoch=done.epoch,
            loss=done.loss,
            learning_rate=done.learning_rate,
            tokens_per_second=done.tokens_per_second,
        )

    def pause(self) -> None:
        """Other work than steps has ended, and does not count as their time."""
        self._pace.pause(self._clock())

    def note(self, name: str, text: str) -> None:
        """Set a metric that is not a number."""
        self._metrics[name] = text

    def put(self, **figures: float | None) -> None:
        """Set metrics by name; None keeps the previous value."""
        known = {name: value for name, value in figures.items() if value is not None}
        self._metrics |= {name: _number(value) for name, value in known.items()}

    def message(self) -> ProgressMessage:
        """The message to send now."""
        percent = 100 * self._step // self._total if self._total else None
        left = self._pace.seconds_left(self._step, self._total)
        return ProgressMessage(
            trainer_status=TrainerStatus(
                progress_percentage=percent,
                estimated_remaining_seconds=None if left is None else round(left),
                metrics=[Metric(name=name, value=value) for name, value in self._metrics.items()],
                last_updated_time=now(),
            )
        )


class Endpoint:
    """Address and credentials for posts."""

    def __init__(self, url: str, ca_file: Path | None, token_file: Path | None) -> None:
        self._url, self._ca_file, self._token_file = url, ca_file, token_file

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Endpoint | None":
        """The endpoint that the operator named, or None on a laptop."""
        url = environment.get(SERVER_URL_VARIABLE)
        if not url:
            return None
        ca, token = (environment.get(name) for name in (CA_VARIABLE, TOKEN_VARIABLE))
        return cls(url, Path(ca) if ca else None, Path(token) if token else None)

    def post(self, message: ProgressMessage, timeout: float) -> str | None:
        """Send a report; returns None if accepted, else the reason. Token and CA are read each time: they rotate."""
        try:
            headers = {"Content-Type": "application/json"}
            if self._token_file is not None:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            context = ssl.create_default_context(cafile=self._ca_file) if self._url.startswith("https:") else None
            body = json.dumps(message.to_json()).encode()
            request = Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310 - the operator's own
            with urlopen(request, timeout=timeout, context=context):  # noqa: S310
                return None
        except HTTPError as error:
            return f"the server answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            return str(error) or type(error).__name__


class ProgressReporter(Observer, Background):
    """An observer that posts; every method only stores figures and returns at once.

    Args:
        endpoint: where to post.
        interval: seconds between two posts; a change of phase, an evaluation and a checkpoint are posted at once.
        say: called once when reports stop getting through, and once when they do again.
    """

    def __init__(
        self, endpoint: Endpoint, interval: float = INTERVAL_SECONDS, say: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__("progress", TIMEOUT_SECONDS + LAST_TIMEOUT_SECONDS)
        self._endpoint, self._interval, self._say = endpoint, interval, say
        self._state = ProgressState()
        self._lock = threading.Lock()
        self._silent = False
        self._posted = 0.0

    @override
    def headline(self, headline: Headline) -> None:
        """The run has started."""
        self._wake.set()

    @override
    def data(self, prepared: DataPrepared) -> None:
        self._wake.set()

    @override
    def phase(self, phase: JobPhase) -> None:
        """Posted at once: an evaluation should be visible while it runs."""
        with self._lock:
            self._state.note(MetricName.PHASE, phase.value)
        self._wake.set()

    @override
    def resumed(self, point: ResumePoint, saved_by: int) -> None:
        """Posted at once: if the attempt is killed, nothing else reports where it resumed."""
        self._put(resumed_from_step=point.step, lost_steps=point.lost_steps)
        self._wake.set()

    @override
    def baseline(self, figures: EvaluationRow) -> None:
        """Baseline figures, under separate names."""
        self._put(**{kind.baseline: getattr(figures, kind.name) for kind in _AS_SENT})
        self._wake.set()

    @override
    def step(self, done: StepDone) -> None:
        with self._lock:
            self._state.step(done)

    @override
    def evaluation(self, evaluation: EvaluationRow) -> None:
        """An evaluation; posted at once."""
        self._put(
            eval_step=evaluation.step,
            eval_epoch=evaluation.epoch,
            eval_train_loss=evaluation.train_loss,
            **{kind.name: getattr(evaluation, kind.name) for kind in _AS_SENT},
        )
        with self._lock:
            self._state.pause()
        self._wake.set()

    @override
    def checkpoint(self, step: int) -> None:
        """A checkpoint is complete; posted at once, since the loss of a node does not lose it."""
        self._put(checkpoint_step=step)
        self._wake.set()

    @override
    def straggler(self, rank: str) -> None:
        with self._lock:
            self._state.note(MetricName.STRAGGLER, rank)

    def _put(self, **figures: float | None) -> None:
        with self._lock:
            self._state.put(**figures)

    @override
    def _run(self) -> None:
        pause = self._interval
        while not self._stop.is_set():
            pause = self._interval if self._post(TIMEOUT_SECONDS) else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._wake.wait(pause)
            self._stop.wait(self._spare())
            self._wake.clear()
        time.sleep(self._spare())
        self._post(LAST_TIMEOUT_SECONDS)

    def _spare(self) -> float:
        """Seconds until the next post is allowed."""
        return max(0.0, self._posted + min(SPACING_SECONDS, self._interval) - time.monotonic())

    def _post(self, timeout: float) -> bool:
        with self._lock:
            message = self._state.message()
        problem = self._endpoint.post(message, timeout)
        self._posted = time.monotonic()
        if (problem is not None) != self._silent:
            self._silent = problem is not None
            self._say(
                f"progress reports do not get through ({problem}); training continues"
                if problem
                else "progress reports get through again"
            )
        return problem is None


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
