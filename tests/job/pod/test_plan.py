"""What a pod's first process reads of its place: from the run file and the environment."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmft_api.wire.ranks import rank_variables, torchrun_variables
from lmft_job.errors import InvalidError
from lmft_job.pod.plan import PodPlan, plan_of
from lmft_job.pod.ranks import environment_of

PLACE = {"LMFT_NODES": "2", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "toy-0.lmft", "MASTER_PORT": "29500"}


def written(folder: Path, **more: Any) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps({"uid": "u-1", "attempt": 3, "spec": {}, **more}))
    return path


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ({}, {}),
        ({"spec": {"resources": {"gpusPerNode": 1}}}, {}),
        ({"spec": {"resources": {"gpusPerNode": 8}}, "stage": "Prepare"}, {}),
        ({"spec": {"resources": {"gpusPerNode": 8}}}, {"RANK": "3", "WORLD_SIZE": "8"}),
        ({"spec": {"resources": {"gpusPerNode": "many"}}}, {}),
        ({"spec": None}, {}),
        ({"spec": []}, {"LMFT_NODES": "2"}),
    ],
)
def test_one_process_stays_one(file: dict[str, Any], environment: dict[str, str], tmp_path: Path) -> None:
    assert plan_of(written(tmp_path, **file), environment) is None


def test_a_run_file_that_is_none_is_left_to_the_process_that_says_so(tmp_path: Path) -> None:
    assert plan_of(tmp_path / "absent", PLACE) is None
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert plan_of(tmp_path / "run.json", PLACE) is None


def test_several_processes_of_one_pod_need_nothing_of_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, spec={"resources": {"gpusPerNode": 4}}, graceSeconds=60)

    plan = plan_of(file, {"HOSTNAME": "toy-3"})

    assert plan == PodPlan(1, 0, 4, port=None, run="u-1", attempt=3, pod="toy-3", grace=60.0)


def test_a_pod_of_several_knows_its_place(tmp_path: Path) -> None:
    names = {"LMFT_POD_NAME": "toy-1", "LMFT_NODE_NAME": "gpu-b", "LMFT_RENDEZVOUS_SECONDS": "5"}

    plan = plan_of(written(tmp_path, spec={"resources": {"nodes": 2, "gpusPerNode": 0}}), PLACE | names)

    assert plan == PodPlan(2, 1, 1, "toy-0.lmft", 29500, "u-1", 3, "toy-1", "gpu-b", 30, 5.0)


def test_every_problem_of_a_place_is_said_at_once(tmp_path: Path) -> None:
    wrong = {"LMFT_NODES": "2", "JOB_COMPLETION_INDEX": "2", "MASTER_PORT": "x"}

    with pytest.raises(InvalidError) as caught:
        plan_of(written(tmp_path), wrong)

    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "JOB_COMPLETION_INDEX", "MASTER_PORT", "MASTER_ADDR",
    ]  # fmt: skip


def test_a_rank_has_torchruns_variables_and_its_share_of_the_cpus() -> None:
    plan = PodPlan(nodes=2, index=1, per_node=4, address="toy-0.lmft", port=29500)

    found = environment_of(plan, 3, 29500, Path("/tmp/w"), 16, {"HOME": "/tmp"}, gpus=False)

    assert {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")} == {
        "RANK": "7", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
    }  # fmt: skip
    assert found.items() >= torchrun_variables(2, 1, 4, "toy-0.lmft", 29500).items()
    assert found.items() >= rank_variables(2, 1, 4, 3, "toy-0.lmft", 29500).items()
    assert (found["OMP_NUM_THREADS"], found["HOME"], found["LMFT_CACHE"]) == ("4", "/tmp", "/tmp/w/cache")
    assert found["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert "TORCH_FR_DUMP_TEMP_FILE" not in found
    # What the platform has chosen stays; a pod never has less than one thread.
    chosen = environment_of(
        plan, 0, 1, Path("/tmp/w"), 2, {"OMP_NUM_THREADS": "3", "TORCH_FR_BUFFER_SIZE": "9"}, gpus=True
    )
    assert (chosen["OMP_NUM_THREADS"], chosen["TORCH_FR_BUFFER_SIZE"]) == ("3", "9")
    assert chosen["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
    assert environment_of(plan, 0, 1, Path("/tmp/w"), 2, {}, gpus=False)["OMP_NUM_THREADS"] == "1"
