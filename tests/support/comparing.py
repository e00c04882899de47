"""What runs of different numbers of ranks are compared by."""

import itertools
import json
from array import array
from pathlib import Path
from typing import Any

from support.chats import chat
from support.forked import run_folder, toy_spec

_THINGS = ("river", "market", "harbour", "bridge", "tower", "old mill", "sea", "school")


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


def conversations(home: Path, **sections: Any) -> dict[str, Any]:
    """Short and long conversations, so that rows of a batch are padded, or packed."""
    lines = [
        {"messages": chat(*(f"Where is the {one}?", f"Near the {other}, where it was in {number}.") * (1 + number % 3))}
        for number, (one, other) in enumerate(itertools.islice(itertools.product(_THINGS, _THINGS), 50))
    ]
    data = home / "chats.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = toy_spec(home, **sections)
    spec["model"]["fromConfig"] = {
        "model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32,
        "intermediate_size": 64, "max_position_embeddings": 256,
    }  # fmt: skip
    spec["dataset"] = {
        "files": [data.as_uri()], "format": "json", "messagesField": "messages", "maxLength": 128,
        "chatTemplate": {"name": "ChatML"}, **sections.get("dataset", {}),
    }  # fmt: skip
    return spec
