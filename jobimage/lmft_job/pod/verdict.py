"""How a pod of several ranks ends: by an order of causes, not of clocks. Pure.

When a rank ends, the connections of the others break, and their errors may be seen first; so the first error is not the
cause. A pod without a cause of its own ends with 8, and names the pod that has one.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from lmft_api.reasons import FINAL_EXIT_CODES, ExitCode, Reason, reason_of_exit
from lmft_api.text.wording import in_words, sentence
from lmft_api.wire.result import Result
from lmft_job.pod.messages import Cause
from lmft_job.pod.plan import PodPlan


class RankExit(IntEnum):
    """Exit codes between a rank and its pod's first process; no pod ends with one."""

    RESTART = 85
    """Out of accelerator memory, and a smaller batch is stored: all ranks are to start again."""
    WAITING = 86
    """Its watchdog found it waiting for other ranks: one of them hangs, or the device does."""


@dataclass(frozen=True)
class Ended:
    """A rank that has ended.

    Attributes:
        rank: its number among all ranks.
        code: its exit code, or minus the signal that killed it.
        result: what it left; None if it left nothing.
        ours: whether its pod's first process killed it.
    """

    rank: int
    code: int
    result: Result | None = None
    ours: bool = False

    @property
    def well(self) -> bool:
        """Whether it ended as it should: done, or stopped."""
        return self.code in (ExitCode.DONE, ExitCode.INTERRUPTED)

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that its pod's first process did not send."""
        return self.code < 0 and not self.ours


@dataclass(frozen=True)
class Seen:
    """What a pod's first process has seen when the last of its ranks has ended.

    Attributes:
        ended: all ranks of the pod.
        told: cause that another pod told of, or that the loss of one is.
        stopping: whether a stop was asked for.
        done: whether rank 0 is done, here or in another pod.
        out_of_memory: whether the kernel killed a process of the pod for want of memory.
    """

    ended: Sequence[Ended]
    told: Cause | None = None
    stopping: bool = False
    done: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Outcome:
    """The end of the pod.

    Attributes:
        code: its exit code.
        result: its termination message.
        restart: start all ranks again instead.
    """

    code: int
    result: Result
    restart: bool = False


_LAST = 9
_ORDER: dict[int, int] = {
    RankExit.RESTART: 2,
    ExitCode.HUNG: 3,
    ExitCode.UNAVAILABLE: 4,
    RankExit.WAITING: 6,
    ExitCode.PEERS: 7,
}
_OWN = 6
"""Places below it are causes of a rank's own; the rest may be what other ranks did."""
_PUBLIC: dict[int, int] = {RankExit.RESTART: ExitCode.INTERRUPTED, RankExit.WAITING: ExitCode.HUNG}


def order(ended: Ended) -> int:
    """Place in the order of causes: the lowest explains the others; 9 explains nothing."""
    if ended.ours or ended.well:
        return _LAST
    if ended.code in FINAL_EXIT_CODES:
        return 0
    if ended.killed:
        return 1
    return _ORDER.get(ended.code, 5)


def is_own(ended: Ended) -> bool:
    """Whether a rank failed by itself, for all that is known, rather than because of another."""
    return order(ended) < _OWN


def cause_of(ended: Sequence[Ended]) -> Ended | None:
    """The rank whose end explains those of the others; of two equal ones the lower number."""
    failed = [end for end in ended if order(end) < _LAST]
    return min(failed, key=lambda end: (order(end), end.rank), default=None)


def tells(ended: Ended, plan: PodPlan, *, out_of_memory: bool = False) -> Cause:
    """What the other pods are told of a rank that failed."""
    result = _result_of(ended, plan, out_of_memory)
    code = _exit_code(ended.code)
    return Cause(
        plan.index,
        result.message,
        str(result.reason or Reason.INTERNAL_ERROR),
        code,
        at_once=ended.killed or ended.code == RankExit.RESTART,
        stacks=code == ExitCode.HUNG,
    )


def conclude(seen: Seen, plan: PodPlan) -> Outcome:
    """The pod's exit code and termination message."""
    first = _first(seen, plan)
    own = cause_of(seen.ended)
    if first is not None and first.code == ExitCode.DONE:
        return Outcome(ExitCode.DONE, first.result or Result(reason=Reason.COMPLETED))
    if own is not None and is_own(own):
        return _failed(own, seen, plan)
    if seen.told is not None:
        return Outcome(ExitCode.PEERS, Result(reason=_peers_reason(seen.told), message=seen.told.words))
    stopped = [end for end in seen.ended if end.code == ExitCode.INTERRUPTED]
    if stopped or (seen.stopping and not seen.done):
        return _interrupted(first, stopped)
    if own is not None:
        return _failed(own, seen, plan)
    return Outcome(ExitCode.DONE, Result(reason=Reason.COMPLETED, message="done; the result is that of the first pod"))


def _first(seen: Seen, plan: PodPlan) -> Ended | None:
    """Rank 0, if it is of this pod."""
    return next((end for end in seen.ended if end.rank == 0 and plan.index == 0), None)


def _peers_reason(told: Cause) -> Reason:
    """A loss that another pod explains is one of peers, whatever the other pod's reason."""
    unreachable = told.reason == Reason.NETWORK_UNREACHABLE
    return Reason.NETWORK_UNREACHABLE if unreachable else Reason.PEERS_MISSING


def _failed(own: Ended, seen: Seen, plan: PodPlan) -> Outcome:
    result = _result_of(own, plan, seen.out_of_memory)
    others = [end for end in seen.ended if end.rank != own.rank]
    if own.result and others and all(end.result and end.result.message == own.result.message for end in others):
        # All ranks of the pod say the same, as of a manifest that cannot work: it is no rank's own.
        result = result.model_copy(update={"message": own.result.message})
    first = _first(seen, plan)
    if first is not None and first.result is not None and first is not own:
        # The first rank alone knows of checkpoints and counts.
        kept = {name: getattr(first.result, name) for name in ("checkpoint", "counts", "highest_attempt")}
        adjustments = result.adjustments or first.result.adjustments
        result = result.model_copy(update={**kept, "adjustments": adjustments})
    if plan.index:
        result = _words_only(result)
    return Outcome(_exit_code(own.code), result, restart=own.code == RankExit.RESTART and plan.nodes == 1)


def _interrupted(first: Ended | None, stopped: Sequence[Ended]) -> Outcome:
    own = [end.result for end in stopped if end.result is not None]
    result = first.result if first in stopped and first is not None else None
    result = result or next(iter(own), None)
    if result is None:
        result = Result(reason=Reason.INTERRUPTED, message="stopped by SIGTERM")
    return Outcome(ExitCode.INTERRUPTED, result if first is not None else _words_only(result))


def _words_only(result: Result) -> Result:
    """What a pod other than the first says: figures are the first one's; what was adjusted belongs to its cause."""
    return Result(reason=result.reason, message=result.message, adjustments=result.adjustments)


def _exit_code(code: int) -> int:
    """The pod's exit code for a rank's: by a signal as a shell says it."""
    if code < 0:
        return 128 - code
    return int(_PUBLIC.get(code, code))


def _result_of(ended: Ended, plan: PodPlan, out_of_memory: bool) -> Result:
    """What a rank left, or what can be said of it, with rank, pod and node."""
    where = place(ended.rank, plan)
    if ended.killed:
        name = signal.Signals(-ended.code).name if -ended.code in set(signal.Signals) else f"signal {-ended.code}"
        if out_of_memory and ended.code == -signal.SIGKILL:
            words = f"the kernel killed {where} for want of memory (exit {_exit_code(ended.code)}); "
            return Result(reason=Reason.OUT_OF_MEMORY, message=f"{words}raise spec.resources.memory")
        words = f"{where} was killed by {name} (exit {_exit_code(ended.code)}); the others were ended without saving"
        return Result(reason=Reason.INTERNAL_ERROR, message=words)
    if ended.result is None:
        words = f"{where} ended with exit {ended.code} and left no message; the end of the log may say why"
        return Result(reason=reason_of_exit(_exit_code(ended.code)), message=words)
    return ended.result.model_copy(update={"message": f"{sentence(ended.result.message)} Seen by {where}."})


def place(rank: int, plan: PodPlan) -> str:
    """``rank 3 (pod x, node y)``, with what is known."""
    return f"rank {rank}{where_of(plan.pod, plan.node)}"


def where_of(pod: str, node: str) -> str:
    """`` (pod x, node y)``, with what is known; empty if nothing is."""
    known = ", ".join(f"{kind} {name}" for kind, name in (("pod", pod), ("node", node)) if name)
    return f" ({known})" if known else ""


def missing(present: Mapping[int, object], plan: PodPlan) -> Cause | None:
    """What the first pod says of those that have not come in time; None if all have."""
    absent = [index for index in range(1, plan.nodes) if index not in present]
    if not absent:
        return None
    names = in_words([str(index) for index in absent[:20]]) + (" and more" if len(absent) > 20 else "")
    pods = f"pod {names} of the attempt has" if len(absent) == 1 else f"pods {names} of the attempt have"
    words = (
        f"{pods} not come within {plan.rendezvous:g} seconds: {len(absent)} of {plan.nodes}. Not scheduled, still "
        f"pulling the image, or kept from port {plan.heartbeats} of the first pod"
        f"{where_of(plan.pod, plan.node)}"
    )
    return Cause(plan.index, words, Reason.PEERS_MISSING, ExitCode.PEERS, at_once=True)
