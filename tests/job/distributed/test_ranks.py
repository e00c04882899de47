"""Several ranks train as one process does: the same rows in a step, the same losses, the same figures."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from support.forked import complete, run_folder, toy_spec
from support.ranks import complete_ranks


def losses(home: Path, name: str = "toy") -> "array[float]":
    """The loss of every step."""
    [file] = (run_folder(home, name) / "checkpoints").glob("*/*/*/lmft_losses.f64")
    found = array("d")
    found.frombytes(file.read_bytes())
    return found


def report(home: Path, name: str = "toy") -> dict[str, Any]:
    return dict(json.loads((run_folder(home, name) / "report.json").read_text()))


def sure(home: Path, task: str, **sections: Any) -> dict[str, Any]:
    """A toy run without dropout, whose masks no two numbers of ranks would draw alike."""
    spec = toy_spec(home, task, **sections)
    config = spec["model"]["fromConfig"]
    names = (
        ("resid_pdrop", "embd_pdrop", "attn_pdrop")
        if task == "CausalLM"
        else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
    config |= dict.fromkeys(names, 0.0)
    return spec


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM", "SequenceClassification"])
def test_ranks_train_as_one_process_does(task: str, size: int, tmp_path: Path) -> None:
    # given a run of one process, whose rows do not divide evenly
    rows = 12
    one = sure(tmp_path, task, training={"perDeviceBatchSize": rows})
    complete(tmp_path, one, name="one")
    # when several ranks share its step, in two passes each
    several = sure(tmp_path, task, training={"perDeviceBatchSize": rows // size // 2, "gradientAccumulationSteps": 2})
    complete_ranks(tmp_path, several, size, name="several")
    # then every step has the same loss
    assert list(losses(tmp_path, "several")) == pytest.approx(list(losses(tmp_path, "one")), abs=1e-5)
    ours, theirs = report(tmp_path, "several"), report(tmp_path, "one")
    assert ours["training"]["tokens"] == theirs["training"]["tokens"]
    assert ours["results"]["evalLoss"] == pytest.approx(theirs["results"]["evalLoss"], abs=1e-5)
