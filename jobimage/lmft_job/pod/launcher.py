"""The first process of a pod that runs several: starts its ranks, hands a stop on, and says why the pod ended.

Not torchrun's agent: its exit codes are its own, and its restarts would compete with the operator's. Imports nothing
heavy; the ranks import torch.
"""

import math
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lmft_api.reasons import ExitCode
from lmft_api.text.shown import shown
from lmft_api.wire.ranks import RANK_FAILED_SECONDS
from lmft_api.wire.result import Result, encode
from lmft_job.distributed.member import FOUND, STACKS_SIGNAL
from lmft_job.errors import JobError
from lmft_job.pod.heartbeat import Peers, peers_of
from lmft_job.pod.messages import Bye, Cause, Stop, Welcome
from lmft_job.pod.plan import PodPlan, options_of, plan_of
from lmft_job.pod.ranks import Ranks, command_of, environment_of
from lmft_job.pod.verdict import Ended, Outcome, Seen, cause_of, conclude, is_own, place, tells
from lmft_job.process.grace import Grace
from lmft_job.process.signals import Interrupt

_TICK_SECONDS = 0.05
_STACKS_SECONDS = 5.0
"""From the news of a hang until the ranks are killed: time to write their stacks."""
_MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")


class Watch:
    """Watches the ranks of a pod to the end of the last.

    Args:
        plan: the pod.
        ranks: its processes.
        peers: the other pods; None if there are none.
        interrupt: a stop that this process was asked for.
        say: one line for the log.
        clock: returns seconds.
    """

    def __init__(
        self,
        plan: PodPlan,
        ranks: Ranks,
        peers: Peers | None,
        interrupt: Interrupt,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._ranks, self._peers = plan, ranks, peers
        self._interrupt, self._say, self._clock = interrupt, say, clock
        self._killed = _killed_for_memory()
        self._told: Cause | None = None
        self._stop_at: float | None = None
        self._kill_at = math.inf
        self._spoken = self._dumped = self._done = False
        self._failures: set[int] = set()

    def to_the_end(self) -> Outcome:
        """Returns once no rank runs any more."""
        while True:
            for ended in self._ranks.poll():
                self._ended(ended)
            for hanging in self._ranks.hanging():
                self._failed(hanging)
            self._listen()
            if self._interrupt.requested:
                self._stop("asked to stop: all ranks save and end", tell=True)
            if self._clock() >= self._kill_at:
                self._ranks.kill()
            if self._ranks.all_ended and not self._explained_soon():
                break
            time.sleep(_TICK_SECONDS)
        return self._conclude()

    def _explained_soon(self) -> bool:
        """Whether another pod may still say why the ranks of this one lost their connections."""
        own = cause_of(list(self._ranks.ended.values()))
        waits = self._peers is not None and self._told is None and own is not None and not is_own(own)
        return waits and self._clock() < self._kill_at

    def _ended(self, ended: Ended) -> None:
        if ended.rank == 0 and ended.code == ExitCode.DONE:
            self._done = True
            self._kill_by(self._clock() + self._plan.grace)
            return
        if ended.ours or ended.code == ExitCode.DONE:
            return
        if ended.code == ExitCode.INTERRUPTED or (self._stop_at is not None and ended.code == -signal.SIGTERM):
            self._stop(f"{place(ended.rank, self._plan)} was stopped: all others are", tell=True)
            return
        self._failed(ended)

    def _failed(self, ended: Ended) -> None:
        """Say why a rank ended, or is about to, once; the others end with it."""
        if ended.rank in self._failures:
            return
        self._failures.add(ended.rank)
        cause = tells(ended, self._plan, out_of_memory=self._out_of_memory())
        self._say(cause.words)
        if is_own(ended):
            self._speak(cause)
        self._fail(cause)

    def _fail(self, cause: Cause) -> None:
        if cause.stacks and not self._dumped:
            self._dumped = True
            self._ranks.signal(STACKS_SIGNAL)
        patience = _STACKS_SECONDS if cause.stacks else RANK_FAILED_SECONDS
        self._kill_by(self._clock() + (0 if cause.at_once else patience))

    def _kill_by(self, moment: float) -> None:
        self._kill_at = min(self._kill_at, moment)

    def _stop(self, words: str, *, tell: bool) -> None:
        if self._stop_at is not None:
            return
        self._stop_at = self._clock()
        self._say(words)
        self._ranks.signal(signal.SIGTERM)
        self._kill_by(self._stop_at + _last_moment(self._plan.grace))
        if tell and self._peers is not None:
            self._peers.tell(Stop(self._plan.index))

    def _listen(self) -> None:
        while self._peers is not None and (message := self._peers.heard()) is not None:
            if isinstance(message, Stop):
                self._stop(f"pod {message.index} of the attempt was asked to stop: all ranks save and end", tell=False)
            elif isinstance(message, Welcome):
                self._say("the first pod hears this one")
            elif isinstance(message, Cause):
                if self._told is None:
                    self._told = message
                    self._say(message.words)
                    if message.index == self._plan.index:
                        self._speak(message)
                self._fail(message)
            elif isinstance(message, Bye) and message.code == ExitCode.DONE:
                self._done = True
                self._kill_by(self._clock() + self._plan.grace)

    def _speak(self, cause: Cause) -> None:
        """Tell the other pods, once."""
        if self._peers is not None and not self._spoken:
            self._spoken = True
            self._peers.tell(cause)

    def _conclude(self) -> Outcome:
        ends = list(self._ranks.ended.values())
        seen = Seen(ends, self._told, self._stop_at is not None, self._done, self._out_of_memory())
        outcome = conclude(seen, self._plan)
        if self._dumped:
            self._show_stacks()
        if self._peers is not None and not outcome.restart:
            own = cause_of(ends)
            if outcome.code in (ExitCode.DONE, ExitCode.INTERRUPTED) and not self._spoken:
                self._peers.tell(Bye(outcome.code))
            elif own is not None:
                self._speak(tells(own, self._plan, out_of_memory=self._out_of_memory()))
        return outcome

    def _show_stacks(self) -> None:
        for rank in sorted(self._ranks.ended):
            if stacks := self._ranks.stacks(rank):
                self._say(f"stacks of {place(rank, self._plan)}, as the attempt was found hanging:\n{stacks}")

    def _out_of_memory(self) -> bool:
        return _killed_for_memory() > self._killed


def _last_moment(grace: float) -> float:
    """Seconds after a stop at which ranks are killed that should have ended by themselves."""
    return (Grace(grace).for_all + grace) / 2


def _killed_for_memory(events: Path = _MEMORY_EVENTS) -> int:
    """How many processes of the container the kernel has killed for want of memory."""
    try:
        lines = dict(line.split(" ", 1) for line in events.read_text().splitlines())
        return int(lines["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0


def launch_ranks(arguments: Sequence[str], interrupt: Interrupt) -> int | None:
    """Run the ranks of this pod to their end, and leave its termination message.

    Returns:
        The pod's exit code; None if the run has one process, which is this one.
    """
    options = options_of(list(arguments))
    try:
        plan = plan_of(options.run_file)
        if plan is None:
            return None
        with interrupt.deferred(), ExitStack() as stack:
            peers = stack.enter_context(peers_of(plan)) if plan.nodes > 1 else None
            outcome = _run(plan, options.work, arguments, peers, interrupt)
            _leave(options.termination_log, outcome.result)
    except JobError as error:
        _say(str(error))
        _leave(options.termination_log, Result(reason=error.reason, message=str(error)))
        return int(error.exit_code)
    return outcome.code


def _run(plan: PodPlan, work: Path, arguments: Sequence[str], peers: Peers | None, interrupt: Interrupt) -> Outcome:
    while True:
        ranks = _start(plan, work, arguments)
        outcome = Watch(plan, ranks, peers, interrupt, _say).to_the_end()
        if not outcome.restart:
            return outcome
        if interrupt.requested:
            return replace(outcome, restart=False)
        _say(f"{outcome.result.message} All ranks of the pod start again")


def _say(words: str) -> None:
    print(shown(words), file=sys.stderr, flush=True)


def _start(plan: PodPlan, work: Path, arguments: Sequence[str]) -> Ranks:
    numbers = [plan.first_rank + local for local in range(plan.per_node)]
    for rank in numbers:
        shutil.rmtree(work / f"rank-{rank}", ignore_errors=True)
    shutil.rmtree(work / "shared" / FOUND, ignore_errors=True)
    port, cpus = plan.port or _free_port(), _cpus()
    gpus = Path("/dev/nvidiactl").exists()
    environments = [
        environment_of(plan, local, port, work, cpus, os.environ, gpus=gpus) for local in range(plan.per_node)
    ]
    return Ranks(plan, work, [command_of(arguments, rank, work) for rank in numbers], environments)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that the container may use: its quota, rounded up, or the node's."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, _, period = quota_file.read_text().strip().partition(" ")
        return max(1, min(available, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return available


def _leave(path: Path, result: Result) -> None:
    try:
        path.write_bytes(encode(result))
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)
