"""What runs of different numbers of ranks are compared by."""

import json
from array import array
from pathlib import Path
from typing import Any

from support.forked import run_folder, toy_spec


def losses(home: Path, name: str = "toy") -> "array[float]":
    """The loss of every step, of a run that is done."""
    [file] = (run_folder(home, name) / "checkpoints").glob("*/*/*/lmft_losses.f64")
    found = array("d")
    found.frombytes(file.read_bytes())
    return found


def report(home: Path, name: str = "toy") -> dict[str, Any]:
    """The run's report."""
    return dict(json.loads((run_folder(home, name) / "report.json").read_text()))


def sure(home: Path, *, task: str = "CausalLM", **sections: Any) -> dict[str, Any]:
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
