"""Checkpoints written beside training by several ranks: all choose the same, and store the same bytes."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.comparing import sure
from support.ranks import complete_ranks
from support.saving import BESIDE, checkpoint_files, manifests, saves

pytestmark = pytest.mark.timeout(900)


def lacking_from_the_fourth(teller: Any) -> None:
    """A patch: the second rank has no memory for the copy of its fourth checkpoint, and of those after it."""
    from lmft_job.training.saving.buffers import HostBuffers

    saves(beside=True)(teller)
    lacking, copy, asked = HostBuffers.lacking, HostBuffers.copy, []

    def measured(self: Any, tree: Any) -> int:
        asked.append(None)
        return 1 << 60 if len(asked) > 2 and os.environ["RANK"] == "1" else lacking(self, tree)

    def copied(self: Any, tree: Any) -> Any:
        teller.tell("copied")
        return copy(self, tree)

    HostBuffers.lacking, HostBuffers.copy = measured, copied  # type: ignore[method-assign]


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_ranks_write_the_same_checkpoints_beside_training(parallelism: str, tmp_path: Path) -> None:
    # given a run of two ranks that wait for their checkpoints
    training = {"parallelism": parallelism}
    spec = sure(tmp_path, training=training, checkpoint={"everySteps": 4, "keep": 10}, output={"weights": "Best"})
    complete_ranks(tmp_path, spec, 2, name="waiting", patch=saves(beside=False))
    # when they are written beside training, as long as both have memory for it
    children = complete_ranks(tmp_path, spec, 2, name="beside", patch=lacking_from_the_fourth)
    # then both have chosen the same, by the first one that is dear and by the one that lacks memory
    assert children[0].said(BESIDE)
    assert [child.lines.count("copied") for child in children] == [2, 2]
    assert children[0].said("note training waits while checkpoints are written")
    # and all files are the same
    expected, found = (checkpoint_files(tmp_path, name) for name in ("waiting", "beside"))
    assert len(manifests(tmp_path, "beside")) > 4
    assert sorted(found) == sorted(expected)
    assert [name for name, content in found.items() if content != expected[name]] == []
