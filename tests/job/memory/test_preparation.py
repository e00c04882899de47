"""What a preparation says of a GPU's memory, before one is taken, and how the run follows a manifest that changes."""

import json
from pathlib import Path
from typing import Any

from support.forked import attempt, complete, run_folder, toy_spec

from lmft_api.wire.run_file import Stage

SMALL = {"gpusPerNode": 1, "gpuMemory": "1Gi"}


def model(width: int) -> dict[str, Any]:
    settings = {"model_type": "gpt2", "n_embd": width, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return {"fromConfig": settings, "tokenizer": {"trainVocabSize": 300}}


def test_what_surely_does_not_fit_is_refused_with_the_cheapest_change(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, model=model(4096), training={"gradientCheckpointing": False}, resources=SMALL)
    refused = attempt(tmp_path, spec, stage=Stage.PREPARE)

    assert refused.wait() == 4
    assert refused.result["reason"] == "AcceleratorOutOfMemory"
    assert "the GPU has 1.0 GiB (spec.resources.gpuMemory)" in refused.result["message"]
    assert "gradientCheckpointing: true (" in refused.result["message"]


def test_what_is_predicted_not_to_fit_checkpoints_layers_and_a_changed_manifest_is_prepared_again(
    tmp_path: Path,
) -> None:
    # given a batch that is too large
    large = {"epochs": 1, "perDeviceBatchSize": 2048}
    spec = toy_spec(tmp_path, model=model(64), training=large, resources=SMALL)
    first = complete(tmp_path, spec, stage=Stage.PREPARE)
    (note,) = first.result["adjustments"]
    said = "predicted not to fit into 1.0 GiB of accelerator memory: activation checkpointing of 1 of 2 layers"
    assert note == said
    stored = json.loads((run_folder(tmp_path) / "adjustment.json").read_text())
    assert (stored["rows"], stored["accumulation"], stored["checkpointedLayers"]) == (2048, 1, 1)

    # when the manifest changes, the preparation of the new one leaves nothing of it
    changed = toy_spec(tmp_path, model=model(64), training={"epochs": 1, "perDeviceBatchSize": 4}, resources=SMALL)
    second = complete(tmp_path, changed, 2, stage=Stage.PREPARE)

    assert "adjustments" not in second.result
    assert not (run_folder(tmp_path) / "adjustment.json").exists()
    # then only that manifest is trained: the earlier one would not be
    refused = attempt(tmp_path, spec, 3, stage=Stage.TRAIN)
    assert refused.wait() == 2
    assert "unfinished run of another spec" in refused.result["message"]
