"""A user's own image: the variables of its pods are those that a bare ``torchrun train.py`` reads."""

import os
import subprocess
import sys
from pathlib import Path

from support.launched import free_ports

from lmft_api.wire.ranks import torchrun_variables

TRAIN = """
import os
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
print(f"rank {dist.get_rank()} of {int(total.item())}", flush=True)
dist.destroy_process_group()
"""


def test_torchrun_without_options_runs_on_all_pods(tmp_path: Path) -> None:
    script, port = tmp_path / "train.py", free_ports(1)
    script.write_text(TRAIN)
    pods = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", str(script)],
            env=os.environ | torchrun_variables(2, index, 1, "127.0.0.1", port) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]

    said = [pod.communicate(timeout=240)[0] for pod in pods]

    assert [pod.returncode for pod in pods] == [0, 0]
    assert sorted("".join(said).split("\n")) == ["", "rank 0 of 2", "rank 1 of 2"]
