"""Checkpoints that are written beside training: when, from what, and that they are the same as any other."""

import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.forked import KILL, TERM, attempt, complete, outcome, toy_spec
from support.saving import BESIDE, checkpoint_files, held_beside, manifests, saves
from support.tiny_bases import save_base

from lmft_job.distributed.group import SOLO, Group
from lmft_job.errors import UnavailableError
from lmft_job.training.history import TrainingHistory
from lmft_job.training.saving.buffers import HostBuffers, storages_of
from lmft_job.training.saving.host_memory import free_memory
from lmft_job.training.saving.rule import Cost, fits
from lmft_job.training.saving.writer import CheckpointWriter, Finish

GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("seconds", "interval", "dear"),
    [(0, 600, False), (12, 600, False), (12.1, 600, True), (1, 10, True), (0.1, 10, False), (1, 0, False)],
)
def test_a_checkpoint_is_dear_above_two_percent_of_the_interval(seconds: float, interval: float, dear: bool) -> None:
    assert Cost(seconds, interval).dear == dear


def test_a_cost_is_said_as_a_share() -> None:
    assert str(Cost(3.14159, 60)) == "3.14 s of 60 s (5.2%)"


@pytest.mark.parametrize(
    ("needed", "writers", "free", "does"),
    [
        (0, 8, 0, True),  # the buffers of the checkpoint before
        (0, 1, None, True),
        (1, 1, None, False),
        (3 * GIBIBYTE, 1, 4 * GIBIBYTE, True),
        (3 * GIBIBYTE + 1, 1, 4 * GIBIBYTE, False),
        (GIBIBYTE, 3, 4 * GIBIBYTE, True),
        (GIBIBYTE, 4, 4 * GIBIBYTE, False),
    ],
)
def test_a_copy_leaves_a_quarter_of_the_free_memory(needed: int, writers: int, free: int | None, does: bool) -> None:
    assert fits(needed, writers, free) == does


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       32000000 kB\nMemAvailable:       1000 kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        (MEMINFO, 1024000),
        (  # a container: its own group is the root of what it sees
            MEMINFO | {
                "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "500000\n",
                "sys/fs/cgroup/memory.current": "450000\n",
                "sys/fs/cgroup/memory.stat": "anon 150000\ninactive_file 200000\n",
            },
            250000,
        ),
        (  # groups within each other: the tightest counts
            MEMINFO | {
                "proc/self/cgroup": "0::/pods/one\n",
                "sys/fs/cgroup/pods/one/memory.max": "max\n", "sys/fs/cgroup/pods/one/memory.current": "5\n",
                "sys/fs/cgroup/pods/memory.max": "700\n", "sys/fs/cgroup/pods/memory.current": "300\n",
            },
            400,
        ),
        (  # more than its limit is in use, which the kernel allows for a moment
            MEMINFO | {
                "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "10", "sys/fs/cgroup/memory.current": "20"
            },
            0,
        ),
        (  # version 1
            MEMINFO | {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "900\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "800\n",
                "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 7\n",
            },
            107,
        ),
        (MEMINFO | {"proc/self/cgroup": "0::/../../other\nnonsense\n"}, 1024000),
    ],
)  # fmt: skip
def test_free_memory_is_the_least_that_machine_and_container_have_left(
    files: dict[str, str], free: int | None, tmp_path: Path
) -> None:
    assert free_memory(system(tmp_path, files)) == free


def state() -> dict[str, Any]:
    """As an optimizer's: views of one storage, shared tensors, numbers, and a tensor without dimensions."""
    whole = torch.arange(12.0)
    shared = torch.full((3,), 2.0, dtype=torch.bfloat16)
    return {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": whole[4:10].view(2, 3).t()}, 1: {"exp_avg": whole[:4]}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "shared": (shared, shared)}],
        "empty": torch.empty(0),
    }


def contents(path: Path) -> dict[str, bytes]:
    """What is in a file of torch.save, whose folder within has the file's own name."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def test_a_copy_is_written_as_the_same_bytes_after_the_original_has_changed(tmp_path: Path) -> None:
    # given what is written of the tensors
    original, buffers = state(), HostBuffers()
    torch.save(original, tmp_path / "now.pt")
    weights = {"a": torch.randn(5, 3), "b": torch.randn(4)}
    save_file(weights, tmp_path / "now.safetensors", metadata={"format": "pt"})
    assert buffers.lacking([original, weights]) == 48 + 4 + 6 + 60 + 16

    # when they change after they were copied
    copied, copied_weights = buffers.copy([original, weights])
    for storage in storages_of([original, weights]).values():
        storage.fill_(7)
    original["param_groups"][0]["params"].append(2)

    # then the copy is written as the same bytes
    torch.save(copied, tmp_path / "later.pt")
    save_file(copied_weights, tmp_path / "later.safetensors", metadata={"format": "pt"})
    assert contents(tmp_path / "later.pt") == contents(tmp_path / "now.pt")
    assert (tmp_path / "later.safetensors").read_bytes() == (tmp_path / "now.safetensors").read_bytes()

    # and the next copy takes no more memory
    assert buffers.lacking([original, weights]) == 0
    [again, _] = buffers.copy([original, weights])
    assert again["state"][1]["exp_avg"].data_ptr() == copied["state"][1]["exp_avg"].data_ptr()
    # unless something has grown
    weights["b"] = torch.randn(8)
    assert buffers.lacking([original, weights]) == 32
    buffers.release()
    assert buffers.lacking([original, weights]) == 48 + 4 + 6 + 60 + 32


class Sink:
    """Takes checkpoints, and finishes none by itself."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, Path, Finish | None]] = []
        self.waits = 0

    def submit(self, folder: Path, step: int, into: str = "", finish: Finish | None = None) -> None:
        self.taken.append((step, folder, finish))

    def check(self) -> None:
        pass

    def wait(self) -> None:
        self.waits += 1


def save_tensor(tensor: torch.Tensor, folder: Path) -> None:
    (folder / "tensor").write_text(str(tensor.tolist()))


class Saved:
    """A writer, and checkpoints of one tensor with it, each as if it had taken so many of a hundred seconds."""

    def __init__(self, home: Path, free: int | None, group: Group = SOLO) -> None:
        self.sink, self.said, self.home = Sink(), list[str](), home
        self.tensor = torch.zeros(2)
        self.writer = CheckpointWriter(torch.nn.Linear(1, 1), group, self.sink, home, self.said.append, lambda: free)

    def store(self, step: int, seconds: float = 0, *, last: bool = False, write: Any = save_tensor) -> str | None:
        """Store a checkpoint; the content of its file, if it was written at once."""
        folder = self.home / str(step)
        folder.mkdir()
        self.tensor.fill_(step)
        with self.writer.collecting():
            self.writer.write(self.tensor, write, folder)
        now = time.monotonic()
        self.writer.store(folder, step, TrainingHistory(), (now - 100, now - seconds), last)
        return (folder / "tensor").read_text() if (folder / "tensor").exists() else None


def test_the_next_checkpoint_after_a_dear_one_is_written_beside_training(tmp_path: Path) -> None:
    saved = Saved(tmp_path, GIBIBYTE)
    # given a cheap checkpoint, and one that took three of a hundred seconds
    assert saved.store(10, 1) == "[10.0, 10.0]"
    assert not saved.writer.beside
    assert saved.store(20, 3) == "[20.0, 20.0]"
    assert saved.said == ["checkpoints are written beside training from now on: writing one took 3 s of 100 s (3.0%)"]
    # then the next ones are handed on with what writes them, once the one before is stored
    waits = saved.sink.waits
    assert saved.store(30) is None
    assert saved.sink.waits == waits + 1
    saved.tensor.fill_(31)
    step, folder, finish = saved.sink.taken[-1]
    assert (step, folder.name, finish is not None) == (30, "30", True)
    assert finish is not None
    finish(folder)
    assert (folder / "tensor").read_text() == "[30.0, 30.0]"
    # but the last one is not, since nothing goes on beside it
    assert saved.store(40, last=True) == "[40.0, 40.0]"
    assert len(saved.said) == 1


def test_without_memory_for_a_copy_training_waits_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shorter(Group):
        """Another process that lacks memory."""

        def all(self, flag: bool) -> bool:
            return False

    def none(self: HostBuffers, tree: Any) -> Any:
        raise MemoryError("DefaultCPUAllocator: can't allocate memory\nand more")

    for name, free, group, why in (
        ("little", 0, SOLO, "a copy takes 0 MiB of memory, and what is left is 0 MiB"),
        ("unknown", None, SOLO, "a copy takes 0 MiB of memory, and what is left is unknown"),
        ("other", GIBIBYTE, Shorter(), "another process has no memory for its copy"),
        ("refused", GIBIBYTE, SOLO, "DefaultCPUAllocator: can't allocate memory"),
    ):
        home = tmp_path / name
        home.mkdir()
        if name == "refused":
            monkeypatch.setattr(HostBuffers, "copy", none)
        saved = Saved(home, free, group)
        saved.store(10, 5)
        assert saved.store(20) == "[20.0, 20.0]"
        assert saved.store(30) == "[30.0, 30.0]"
        assert all(finish is None for _, _, finish in saved.sink.taken)
        assert saved.said[1:] == [f"training waits while checkpoints are written: {why}"]


def test_a_full_disk_has_the_same_reason_at_once_and_beside_training(tmp_path: Path) -> None:
    def full(tensor: torch.Tensor, folder: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: No space left on device")

    saved = Saved(tmp_path, GIBIBYTE)
    saved.store(10, 5)
    saved.store(20, write=full)
    _, folder, finish = saved.sink.taken[-1]
    assert finish is not None
    with pytest.raises(UnavailableError, match="no space left"):
        finish(folder)
    with pytest.raises(UnavailableError, match="no space left"):
        saved.store(30, last=True, write=full)


def spec_of(home: Path, kind: str) -> dict[str, Any]:
    spec = toy_spec(home, checkpoint={"everySteps": 4, "keep": 10}, output={"weights": "Best"})
    if kind == "adapter":
        spec["training"]["adapter"] = {"rank": 4}
        spec["model"] = {"name": save_base(home / "base", "llama")}
    return spec


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_checkpoints_written_beside_training_have_the_same_bytes(kind: str, tmp_path: Path) -> None:
    # given a run that waits for its checkpoints
    spec = spec_of(tmp_path, kind)
    waiting = complete(tmp_path, spec, name="waiting", patch=saves(beside=False))
    assert not waiting.said(BESIDE)
    # when the same run writes them beside training
    beside = complete(tmp_path, spec, name="beside", patch=saves(beside=True))
    assert beside.said(BESIDE)
    # then all files of all checkpoints are the same, and so is the end
    expected, found = (checkpoint_files(tmp_path, name) for name in ("waiting", "beside"))
    assert len(manifests(tmp_path, "beside")) > 4
    assert sorted(found) == sorted(expected)
    assert [name for name, content in found.items() if content != expected[name]] == []


def test_a_checkpoint_being_written_is_finished_on_a_stop_and_is_none_after_a_kill(tmp_path: Path) -> None:
    # given an attempt whose second checkpoint does not get written
    spec, gate = toy_spec(tmp_path), tmp_path / "go"
    killed = attempt(tmp_path, spec, patch=held_beside(gate))
    killed.until("held")
    # then training goes on to the next one, which waits
    killed.until("step 15")
    killed.signal(KILL)
    assert killed.wait() == -KILL
    assert "step 16" not in {" ".join(line.split()[:2]) for line in killed.lines}
    assert manifests(tmp_path) == [5]
    # when the next attempt is stopped at such a moment
    stopped = attempt(tmp_path, spec, 2, patch=held_beside(gate))
    stopped.until("note resumed from step 5")
    stopped.until("held")
    at = int(stopped.until("step").split()[1])
    stopped.signal(TERM)
    gate.touch()
    assert stopped.wait() == 75
    # then that one is finished, and a last one stored
    last = stopped.result["checkpoint"]["step"]
    assert last > at - 1
    assert {5, 10, 15, last} <= set(manifests(tmp_path))
    # and the run ends as one to which nothing happened
    complete(tmp_path, spec, 3)
    complete(tmp_path, spec, name="calm")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
