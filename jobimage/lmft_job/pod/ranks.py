"""The ranks of a pod as processes: started, signalled, killed, and what they leave."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lmft_api.reasons import ExitCode
from lmft_api.wire import ranks as wire
from lmft_api.wire.result import Result, decode
from lmft_job.distributed.member import PARENT, STACKS
from lmft_job.pod.plan import PodPlan
from lmft_job.pod.verdict import Ended

THREADS = "OMP_NUM_THREADS"
CACHE = "LMFT_CACHE"
_RECORDER = {"TORCH_FR_BUFFER_SIZE": "2000"}
"""The recorder of the last collectives, of gloo and NCCL: a rank that hangs shows those that have not ended."""
_NCCL = {
    "TORCH_FR_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
}
"""Its whole record as a file, where there is a GPU."""
RECORDER_FILE = "TORCH_FR_DUMP_TEMP_FILE"


def rank_folder(work: Path, rank: int) -> Path:
    """Scratch folder of a rank."""
    return work / f"rank-{rank}"


def result_file(work: Path, rank: int) -> Path:
    """Where a rank writes what its pod may write as termination message."""
    return rank_folder(work, rank) / "result.json"


def stacks_file(work: Path, rank: int) -> Path:
    """Where a rank writes the stacks of its threads."""
    return rank_folder(work, rank) / "stacks.txt"


def hung_file(work: Path, rank: int) -> Path:
    """Where a rank says that it hangs, once its result is written, while it still runs."""
    return rank_folder(work, rank) / "hung"


def recorder_prefix(work: Path) -> Path:
    """Beginning of the names of NCCL's records; each rank's number follows."""
    return work / "collectives-"


def environment_of(
    plan: PodPlan, local: int, port: int, work: Path, cpus: int, environment: Mapping[str, str], *, gpus: bool
) -> dict[str, str]:
    """The environment of one rank of a pod.

    Args:
        plan: the pod.
        local: number of the rank in its pod.
        port: where the ranks meet.
        work: scratch folder of the pod.
        cpus: that the pod may use; its ranks divide them.
        environment: the pod's.
        gpus: whether ranks compute on GPUs.
    """
    found = dict(environment) | wire.rank_variables(plan.nodes, plan.index, plan.per_node, local, plan.address, port)
    found.setdefault(THREADS, str(max(1, cpus // plan.per_node)))
    found.setdefault(CACHE, str(work / "cache"))
    found[wire.RENDEZVOUS_VARIABLE] = str(wire.PATIENT_RENDEZVOUS_SECONDS)
    found[PARENT] = str(os.getpid())
    found[STACKS] = str(stacks_file(work, plan.first_rank + local))
    recorder = _RECORDER | (_NCCL | {RECORDER_FILE: str(recorder_prefix(work))} if gpus else {})
    for name, value in recorder.items():  # unless the platform says otherwise
        found.setdefault(name, value)
    return found


class Ranks:
    """The processes of a pod's ranks.

    Args:
        plan: the pod.
        work: scratch folder of the pod.
        commands: one for each rank.
        environments: one for each rank.
    """

    def __init__(
        self,
        plan: PodPlan,
        work: Path,
        commands: Sequence[Sequence[str]],
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        self._plan, self._work = plan, work
        self._ours: set[int] = set()
        self._hung: set[int] = set()
        self.ended: dict[int, Ended] = {}
        for local in range(plan.per_node):
            folder = rank_folder(work, plan.first_rank + local)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (result_file, stacks_file, hung_file):
                file(work, plan.first_rank + local).unlink(missing_ok=True)
        self._processes = [
            # A group of its own: a Ctrl-C reaches the pod's first process alone, and a kill the rank's children too.
            subprocess.Popen(command, env=environment, process_group=0)
            for command, environment in zip(commands, environments, strict=True)
        ]

    @property
    def all_ended(self) -> bool:
        """Whether none runs any more."""
        return len(self.ended) == len(self._processes)

    def poll(self) -> list[Ended]:
        """Ranks that have ended since the last call."""
        new = []
        for local, process in enumerate(self._processes):
            rank = self._plan.first_rank + local
            if rank not in self.ended and (code := process.poll()) is not None:
                _signal(process.pid, signal.SIGKILL)  # what the rank had started and left
                hung = rank in self._hung  # it waited to be killed
                ours = rank in self._ours and not hung
                self.ended[rank] = Ended(rank, ExitCode.HUNG if hung else code, self._result(rank), ours=ours)
                new.append(self.ended[rank])
        return new

    def hanging(self) -> list[Ended]:
        """Ranks that have said since the last call that they hang, as they will have ended; they still run."""
        first = self._plan.first_rank
        running = {first + local for local in range(len(self._processes))} - self.ended.keys() - self._hung
        new = [rank for rank in sorted(running) if hung_file(self._work, rank).exists()]
        self._hung |= set(new)
        return [Ended(rank, ExitCode.HUNG, self._result(rank)) for rank in new]

    def signal(self, number: int) -> None:
        """Send a signal to those that run."""
        for local, process in enumerate(self._processes):
            if self._plan.first_rank + local not in self.ended and process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)

    def kill(self) -> None:
        """End those that run, with what they have started."""
        for local, process in enumerate(self._processes):
            rank = self._plan.first_rank + local
            if rank not in self.ended and process.poll() is None:
                self._ours.add(rank)
                _signal(process.pid, signal.SIGKILL)

    def stacks(self, rank: int) -> str:
        """What a rank wrote of its stacks; empty if nothing."""
        try:
            return stacks_file(self._work, rank).read_text(errors="replace")
        except OSError:
            return ""

    def _result(self, rank: int) -> Result | None:
        try:
            return decode(result_file(self._work, rank).read_text(errors="replace"))
        except OSError:
            return None


def command_of(arguments: Sequence[str], rank: int, work: Path) -> list[str]:
    """The command of a rank: this package again, its last words into a file."""
    # -P: no module is imported from the current folder, which others may write to.
    return [
        sys.executable, "-P", "-m", "lmft_job.pod", *arguments, "--termination-log", str(result_file(work, rank)),
    ]  # fmt: skip


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
