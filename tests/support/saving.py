"""Runs whose checkpoints are written beside training, or not, whatever they cost; and what those hold."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

from support.forked import run_folder

from lmft_api.wire.layout import STATE_FILE

BESIDE = "note checkpoints are written beside training"


def saves(*, beside: bool) -> Any:
    """A patch: all checkpoints but the first and the last are written beside training, or none; all are kept."""

    def patch(teller: Any) -> None:
        from lmft_job.attempt import uploads
        from lmft_job.checkpoints import uploader
        from lmft_job.training.saving import rule

        rule.DEAR = -1.0 if beside else math.inf
        uploader.prune = uploads.prune = lambda *args: 0  # type: ignore[attr-defined]

    return patch


def held_beside(gate: Path) -> Any:
    """A patch: the optimizer's state is written beside training, and not before there is a file; it tells of it."""

    def patch(teller: Any) -> None:
        from lmft_job.training.saving import trainer

        saves(beside=True)(teller)
        original = trainer._save_optimizer

        def held(state: Any, folder: Path) -> None:
            if threading.current_thread() is not threading.main_thread():
                teller.tell("held")
                while not gate.exists():
                    time.sleep(0.01)
            original(state, folder)

        trainer._save_optimizer = held

    return patch


def manifests(home: Path, name: str = "toy") -> list[int]:
    """The steps of all complete checkpoints, in order."""
    found = (run_folder(home, name) / "checkpoints").glob("*/*/MANIFEST.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def header_and_rest(content: bytes) -> tuple[Any, bytes]:
    """A safetensors file, whose header has its metadata in no particular order."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def checkpoint_files(home: Path, name: str = "toy") -> dict[str, Any]:
    """The content of every file of every checkpoint, but for the times in them."""
    found: dict[str, Any] = {}
    for manifest in (run_folder(home, name) / "checkpoints").glob("*/*/MANIFEST.json"):
        written = json.loads(manifest.read_text())
        for file in written["files"]:
            content: Any = (manifest.parent / written["folder"] / file).read_bytes()
            if file == STATE_FILE:
                content = {key: value for key, value in json.loads(content).items() if "seconds" not in key}
            if file.endswith(".safetensors"):
                content = header_and_rest(content)
            if not file.startswith(("lmft_steps", "training_args")) and not file.endswith("tokenizer_config.json"):
                found[f"{manifest.parent.name}/{file}"] = content
    return found
