"""A step of several forward passes is the step of one: by the manifest, or since memory did not suffice."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.forked import complete, outcome, run_folder, toy_spec
from support.shortage import short_of_memory

from lmft_job.errors import AcceleratorMemoryError
from lmft_job.storage import open_store
from lmft_job.training.batch import ALL_LAYERS, Adjustment, Batch, Checkpointing
from lmft_job.training.history import LOSSES_FILE, TrainingHistory

TASKS = ["CausalLM", "MaskedLM", "SequenceClassification"]


def spec_of(home: Path, task: str, rows: int, passes: int = 1, **training: Any) -> dict[str, Any]:
    """Without dropout, which draws other masks for other batches; with SGD, which feels the gradients' size."""
    batch = {"perDeviceBatchSize": rows, "gradientAccumulationSteps": passes}
    chosen = {"optimizer": "SGD", "learningRate": "0.5", "epochs": 1, **batch, **training}
    spec = toy_spec(home, task, training=chosen)
    off = ("attn_pdrop", "embd_pdrop", "resid_pdrop") if task == "CausalLM" else (
        "hidden_dropout_prob", "attention_probs_dropout_prob",
    )  # fmt: skip
    spec["model"]["fromConfig"] |= dict.fromkeys(off, 0.0)
    return spec


def losses(home: Path, name: str) -> list[float]:
    """The loss of every step."""
    [path] = run_folder(home, name).glob(f"checkpoints/*/*/*/{LOSSES_FILE}")
    return list(TrainingHistory.load(path.parent).losses)


@pytest.mark.parametrize("task", TASKS)
def test_accumulated_batches_train_as_the_undivided_one_does(task: str, tmp_path: Path) -> None:
    for name, rows, passes in (("whole", 8, 1), ("halves", 4, 2), ("quarters", 2, 4)):
        complete(tmp_path, spec_of(tmp_path, task, rows, passes), name=name)
    whole = losses(tmp_path, "whole")
    figures = outcome(tmp_path, "whole")["results"]
    for name in ("halves", "quarters"):
        assert losses(tmp_path, name) == pytest.approx(whole, rel=1e-4)
        assert outcome(tmp_path, name)["results"]["evalLoss"] == pytest.approx(figures["evalLoss"], rel=1e-4)


@pytest.mark.parametrize("scaled", [None, True, False])
def test_a_loss_of_somebodys_own_is_divided_by_the_batches_unless_its_class_says_otherwise(
    scaled: bool | None, tmp_path: Path
) -> None:
    (tmp_path / "their_loss.py").write_text(
        "import torch\nfrom transformers import Trainer\n"
        "class Smoothed(Trainer):\n"
        f"    loss_is_scaled_for_ga = {scaled}\n"
        "    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):\n"
        "        labels = inputs.pop('labels')\n"
        "        outputs = model(**inputs)\n"
        "        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=0.1)\n"
        "        return (loss, outputs) if return_outputs else loss\n"
    )
    options: dict[str, Any] = {"patch": lambda teller: sys.path.insert(0, str(tmp_path)), "allow_user_code": True}
    for name, rows, passes in (("whole", 8, 1), ("halves", 4, 2)):
        spec = spec_of(tmp_path, TASKS[2], rows, passes, maxSteps=5, trainerClass="their_loss.Smoothed")
        spec["training"].pop("epochs")
        complete(tmp_path, spec, name=name, **options)
    first, halved = losses(tmp_path, "whole")[0], losses(tmp_path, "halves")
    assert halved[0] == pytest.approx(2 * first if scaled else first, rel=1e-5)
    if not scaled:
        assert halved == pytest.approx(losses(tmp_path, "whole"), rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_without_accelerator_memory_the_batch_is_halved_and_the_figures_agree(task: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, task, 4, gradientCheckpointing=False)
    complete(tmp_path, spec, name="calm")
    child = complete(tmp_path, spec, patch=short_of_memory(2, from_step=7))
    assert "restart" in child.lines
    assert child.said("resumed from step 5")
    [note] = child.result["adjustments"]
    assert "perDeviceBatchSize 4 → 2, gradientAccumulationSteps 1 → 2" in note
    halved, calm = outcome(tmp_path), outcome(tmp_path, "calm")
    assert losses(tmp_path, "toy") == pytest.approx(losses(tmp_path, "calm"), rel=1e-4)
    assert halved["results"]["evalLoss"] == pytest.approx(calm["results"]["evalLoss"], rel=1e-4)
    assert [kept["trainLoss"] for kept in halved["evaluations"]] == pytest.approx(
        [kept["trainLoss"] for kept in calm["evaluations"]], rel=1e-4
    )


@pytest.mark.parametrize("passes", [1, 2])
def test_a_batch_in_which_no_token_is_masked_does_no_harm(passes: int, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "MaskedLM", 1, passes, maxSteps=60)
    spec["training"].pop("epochs")
    spec["dataset"]["blockSize"] = 8
    complete(tmp_path, spec)
    curve = losses(tmp_path, "toy")
    assert 0 < curve.count(0.0) < 30, "some steps have no target at all"
    assert all(0 < loss < 10 for loss in curve if loss)


def test_of_two_processes_short_of_memory_the_first_decides(tmp_path: Path) -> None:
    # given two that start with the same batch
    store = open_store(f"file://{tmp_path}")
    planned = Batch(8, 1)
    first, second = (Adjustment.load(store, planned).after_shortage(step, layers=0) for step in (5, 6))

    # when both store a smaller one, then the first one stands, for both
    assert first.save_first(store) == first
    assert second.save_first(store) == first
    assert Adjustment.load(store, planned) == first

    # and one whose process ended in between is known all the same, to this release and, without it, to older ones
    again = first.after_shortage(9, layers=0)
    assert (tmp_path / "adjustments/0001.json").read_text() == (tmp_path / "adjustment.json").read_text()
    assert again.save_first(store) == again
    (tmp_path / "adjustment.json").unlink()
    assert Adjustment.load(store, planned) == again
    assert again.batch.rows == 2


def test_before_the_batch_is_halved_layers_are_checkpointed_and_last_their_inputs_leave_the_device() -> None:
    # given a run that is short of memory whatever it adjusts
    adjustment, tried = Adjustment(Batch(4)), []
    for _ in range(5):
        adjustment = adjustment.after_shortage(7, layers=5)
        tried.append((adjustment.checkpointing.layers, adjustment.batch.rows, adjustment.checkpointing.offload))
    with pytest.raises(AcceleratorMemoryError) as ended:
        adjustment.after_shortage(7, layers=5)

    # then these were its steps
    assert tried == [(3, 4, False), (5, 4, False), (5, 2, False), (5, 1, False), (5, 1, True)]
    assert adjustment.notes[0] == "out of accelerator memory at step 7: activation checkpointing of 3 of 5 layers"
    assert adjustment.notes[-1].endswith("of 5 of 5 layers, with their inputs in host memory")
    assert "batch of 1, with all layers checkpointed and their inputs in host memory. Choose a" in str(ended.value)


def test_what_a_release_stored_that_only_made_batches_smaller_is_read(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.put_bytes("adjustment.json", b'{"rows": 2, "accumulation": 4, "notes": ["smaller"]}')

    found = Adjustment.load(store, Batch(8), Checkpointing(ALL_LAYERS))

    assert found == Adjustment(Batch(2, 4), ("smaller",), Checkpointing(ALL_LAYERS))
