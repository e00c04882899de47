"""Two pods that train one run, on this machine: stopped, killed, short of memory, hanging."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forked import UID, run_folder, toy_spec
from support.launched import Attempt, forked_ranks, gone
from support.shortage import short_of_memory

from lmft_api.reasons import ExitCode

WITH_STEPS = 400


def marked(patch: Callable[[int], None] = lambda rank: None) -> Callable[[], None]:
    """To call in a rank: it leaves a mark when it starts, and at its third step."""

    def install() -> None:
        from lmft_job.training.trainer import RecipeTrainer

        rank, marks = int(os.environ["RANK"]), Path(os.environ["MARKS"])
        (marks / f"up-{rank}").write_text(str(os.getpid()))
        whole = RecipeTrainer.training_step

        def training_step(self: Any, model: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == 3:
                (marks / f"trains-{rank}").write_text("now")
            return whole(self, model, *args, **options)

        RecipeTrainer.training_step = training_step  # type: ignore[method-assign]
        patch(rank)

    return install


def start(
    home: Path,
    patch: Callable[[int], None] = lambda rank: None,
    *,
    nodes: int = 2,
    per_node: int = 1,
    model: dict[str, Any] | None = None,
    **training: Any,
) -> Attempt:
    """The first attempt of a run that would train for long."""
    spec = toy_spec(home, training={"maxSteps": WITH_STEPS, **training}, evaluation={"everySteps": WITH_STEPS})
    del spec["training"]["epochs"], spec["sample"]
    spec["model"] |= model or {}
    spec["checkpoint"] = {"everySteps": 2 * WITH_STEPS}
    spec["resources"] = {"nodes": nodes, "gpusPerNode": per_node if per_node > 1 else 0}
    file = {"spec": spec, "uid": UID, "graceSeconds": 30}
    return Attempt(home, None, nodes, per_node, run_file=file, patch=forked_ranks(marked(patch)))


def manifests(home: Path) -> list[Path]:
    return sorted((run_folder(home) / "checkpoints").glob("*/*/MANIFEST.json"))


def slow(rank: int) -> None:
    """A patch: steps that take long enough to be interrupted."""
    from lmft_job.training.loop import TrainingLoop

    whole = TrainingLoop.step_done

    def step_done(self: Any, *args: Any) -> None:
        time.sleep(0.05)
        whole(self, *args)

    TrainingLoop.step_done = step_done  # type: ignore[method-assign]


@pytest.mark.parametrize(("signalled", "parallelism"), [(0, "DDP"), (1, "DDP"), (1, "FSDP")])
def test_a_stop_of_one_pod_saves_one_checkpoint_of_one_step(signalled: int, parallelism: str, tmp_path: Path) -> None:
    attempt = start(tmp_path, slow, parallelism=parallelism)
    attempt.until("trains-0", "trains-1")

    os.kill(attempt.pods[signalled].pid, signal.SIGTERM)
    ends = attempt.end()

    assert [(code, result.reason) for code, result in ends.values()] == [(75, "Interrupted")] * 2, attempt.pods[0].log
    [manifest] = manifests(tmp_path)
    saved = ends[0][1].checkpoint.step
    assert 3 <= saved < WITH_STEPS
    assert manifest.parent.name == f"step-{saved:08d}"
    assert ends[1][1].checkpoint is None
    # of divided weights every pod has stored its part, and said so, before the manifest
    parts = {"parts/0.json", "parts/1.json"} if parallelism == "FSDP" else set()
    found = {
        note.relative_to(manifest.parent).as_posix().partition("/")[2] for note in manifest.parent.glob("*/parts/*")
    }
    assert found == parts
    shards = {name for name in json.loads(manifest.read_text())["files"] if name.startswith("shards/")}
    assert len(shards) == len(parts)


def test_a_pod_gone_before_its_part_is_stored_leaves_no_manifest(tmp_path: Path) -> None:
    # given two pods that store parts of a checkpoint, of which one takes for ever
    def held(rank: int) -> None:
        from lmft_job.storage.local import FileStore

        put_file, put_if_absent = FileStore.put_file, FileStore.put_if_absent

        def holds(self: Any, key: str, *args: Any) -> str:
            stored = put_file(self, key, *args)
            if "/shards/" in key and rank == 1:
                (Path(os.environ["MARKS"]) / "holds-1").write_text("now")
                while True:
                    time.sleep(0.1)
            return stored

        def notes(self: Any, key: str, data: bytes) -> bool:
            stored = put_if_absent(self, key, data)
            if key.endswith("/parts/0.json"):
                (Path(os.environ["MARKS"]) / "noted-0").write_text("now")
            return stored

        FileStore.put_file, FileStore.put_if_absent = holds, notes  # type: ignore[method-assign]

    attempt = start(tmp_path, held, parallelism="FSDP", maxSteps=10)
    attempt.until("noted-0", "holds-1")
    rank = attempt.pid(1)

    os.kill(rank, signal.SIGKILL)
    ends = attempt.end()

    # then the other has waited for it, and there is no checkpoint
    assert ends[0][0] == 8, attempt.pods[0].log
    assert list((run_folder(tmp_path) / "checkpoints").glob("*/*/*/parts/0.json"))
    assert manifests(tmp_path) == []


def test_a_killed_rank_ends_all_at_once_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    attempt = start(tmp_path, slow)
    attempt.until("trains-0", "trains-1")
    pids = [attempt.pid(rank) for rank in (0, 1)]

    began = time.monotonic()
    os.kill(pids[1], signal.SIGKILL)
    ends = attempt.end()

    assert time.monotonic() - began < 10
    assert all(map(gone, pids))
    assert (ends[1][0], ends[1][1].reason) == (137, "InternalError")
    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")
    assert "rank 1 (pod toy-1, node node-1) was killed by SIGKILL (exit 137)" in ends[0][1].message
    assert manifests(tmp_path) == []


def test_a_rank_that_hangs_is_named_with_what_it_was_doing_and_the_stacks_of_all(tmp_path: Path) -> None:
    def hang(rank: int) -> None:
        from lmft_job.process.watchdog import Watchdog
        from lmft_job.training.trainer import RecipeTrainer

        whole, begin = RecipeTrainer.compute_loss, Watchdog.steps_begin
        watchdogs: list[Any] = []

        def steps_begin(self: Watchdog, where: str) -> None:
            watchdogs.append(self)
            begin(self, where)

        def reads_a_dead_disk(self: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == 4:
                watchdogs[0]._seconds = 5.0  # not before, when a busy machine may be as slow
                while rank == 1:
                    time.sleep(0.1)
            return whole(self, *args, **options)

        Watchdog.steps_begin = steps_begin  # type: ignore[method-assign]
        RecipeTrainer.compute_loss = reads_a_dead_disk  # type: ignore[method-assign]

    attempt = start(tmp_path, hang, watchdogSeconds=300)

    ends = attempt.end()

    assert (ends[1][0], ends[1][1].reason) == (7, "Hung"), attempt.pods[1].log
    assert "nothing moved" in ends[1][1].message
    assert "It was in reads_a_dead_disk (" in ends[1][1].message
    assert "Seen by rank 1 (pod toy-1, node node-1)" in ends[1][1].message
    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")
    assert "reads_a_dead_disk" in ends[0][1].message
    assert "stacks of rank 0 (pod toy-0, node node-0)" in attempt.pods[0].log
    assert re.search(r"collective: gloo:\w+ \d+ of \S+, sizes .*: ended", attempt.pods[1].log)
    _, _, stacks = attempt.pods[1].log.partition("stacks of rank 1 (pod toy-1, node node-1)")
    assert "reads_a_dead_disk" in stacks
    assert manifests(tmp_path) == []


def short(rank: int) -> None:
    """A patch: rank 1 has memory for two rows."""
    if rank == 1:
        short_of_memory(2)()


def test_a_shortage_in_one_of_several_pods_ends_the_attempt_with_a_smaller_batch(tmp_path: Path) -> None:
    ends = start(tmp_path, short, gradientCheckpointing=False).end()

    assert (ends[1][0], ends[1][1].reason) == (75, "Interrupted")
    assert "perDeviceBatchSize 4 → 2" in ends[1][1].message
    assert ends[1][1].adjustments
    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")
    assert json.loads((run_folder(tmp_path) / "adjustment.json").read_text())["rows"] == 2


def without_gpus(rank: int) -> None:
    """A patch: each rank of a pod computes on the CPU."""
    import torch

    from lmft_job.stages import check

    check.choose_device = lambda *args, **options: torch.device("cpu")  # type: ignore[assignment]


def test_a_shortage_in_one_rank_of_one_pod_starts_all_its_ranks_again(tmp_path: Path) -> None:
    def patch(rank: int) -> None:
        without_gpus(rank)
        short(rank)

    attempt = start(tmp_path, patch, nodes=1, per_node=2, maxSteps=8, parallelism="FSDP", gradientCheckpointing=False)

    code, result = attempt.end()[0]

    assert code == 0, attempt.pods[0].log
    assert "All ranks of the pod start again" in attempt.pods[0].log
    assert "perDeviceBatchSize 4 → 2" in result.adjustments[-1]


def test_a_rank_that_every_step_waits_for_is_named_with_its_node(tmp_path: Path) -> None:
    def slower(rank: int) -> None:
        from lmft_job.training.trainer import RecipeTrainer

        whole = RecipeTrainer.get_batch_samples

        def from_a_slow_disk(self: Any, *args: Any) -> Any:
            time.sleep(0.2 * rank)
            return whole(self, *args)

        RecipeTrainer.get_batch_samples = from_a_slow_disk  # type: ignore[method-assign]

    attempt = start(tmp_path, slower, maxSteps=40)

    assert [code for code, _ in attempt.end().values()] == [0, 0]
    assert "every step waits for rank 1 on node-1 (" in attempt.pods[0].log


def test_what_the_first_rank_finds_wrong_with_a_model_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    # given two ranks of a pod, of which the first tries a model that cannot be built
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 33, "n_positions": 48}
    attempt = start(tmp_path, without_gpus, nodes=1, per_node=2, parallelism="FSDP", model={"fromConfig": config})

    ends = attempt.end()

    # then its words are the pod's
    [(code, result)] = ends.values()
    assert (code, result.reason) == (ExitCode.INVALID, "InvalidSpec"), attempt.pods[0].log
    assert "spec.model.fromConfig" in result.message
