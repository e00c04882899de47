"""The loss curve is the tutorial's, and what departs from it is refused, repaired or told."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forked import attempt, complete, outcome, run_folder, toy_spec
from support.shortage import short_of_memory

from lmft_job.attempt.ending import conclude
from lmft_job.errors import AcceleratorMemoryError
from lmft_job.process.signals import Interrupt
from lmft_job.training.batch import Batch, is_shortage


def test_a_learning_rate_that_diverges_ends_with_exit_5_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, checkpoint={"everySteps": 1}, training={"learningRate": "10", "maxGradNorm": "1000000"})

    def poison(teller: Any) -> None:
        # A number that no clipping tames: the loss is infinite from step 4 on.
        from lmft_job.training.trainer import RecipeTrainer

        original = RecipeTrainer.compute_loss

        def compute_loss(self: Any, *args: Any, **options: Any) -> Any:
            loss = original(self, *args, **options)
            return loss * math.inf if self.state.global_step >= 3 else loss

        RecipeTrainer.compute_loss = compute_loss  # type: ignore[method-assign]

    child = attempt(tmp_path, spec, patch=poison)
    assert child.wait() == 5
    assert child.result["reason"] == "Diverged"
    assert "learningRate" in child.result["message"]
    kept = sorted(path.parent.name for path in run_folder(tmp_path).glob("checkpoints/*/*/MANIFEST.json"))
    assert kept[-1] == "step-00000003"


def test_an_evaluation_that_is_no_number_ends_with_exit_5_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def poison(teller: Any) -> None:
        from transformers import GPT2LMHeadModel

        from lmft_job.training.loop import TrainingLoop

        measure, forward = TrainingLoop.measure, GPT2LMHeadModel.forward

        def spoilt(self: Any, *args: Any, **options: Any) -> Any:
            output = forward(self, *args, **options)
            output.loss = output.loss * math.nan
            return output

        def measure_spoilt(self: Any, step: int, epoch: float) -> Any:
            GPT2LMHeadModel.forward = spoilt  # type: ignore[method-assign]
            return measure(self, step, epoch)

        TrainingLoop.measure = measure_spoilt  # type: ignore[method-assign]

    child = attempt(tmp_path, toy_spec(tmp_path), patch=poison)
    assert child.wait() == 5
    assert child.result["reason"] == "Diverged"
    assert "the evaluation became nan at batch 1" in child.result["message"]
    assert child.result["checkpoint"]["step"] == 25
    assert not (run_folder(tmp_path) / "model").exists()


def test_a_perplexity_that_is_infinite_ends_with_exit_5(tmp_path: Path) -> None:
    wild = {"learningRate": "10", "maxGradNorm": "1000000", "optimizer": "SGD", "warmupPercent": 0}
    child = attempt(tmp_path, toy_spec(tmp_path, training=wild))
    assert child.wait() == 5
    assert child.result["reason"] == "Diverged"
    assert "the perplexity became infinite at step" in child.result["message"]
    assert not (run_folder(tmp_path) / "model").exists()


@pytest.mark.parametrize(
    ("training", "exactly"),
    [
        ({"gradientCheckpointing": True}, True),
        ({"precision": "BF16"}, False),
        ({"precision": "FP16"}, False),
        ({"optimizer": "Adafactor"}, False),
        ({"scheduler": "Cosine"}, False),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_every_way_to_train_that_a_cpu_knows_learns(
    training: dict[str, Any], exactly: bool, tmp_path: Path, plain: dict[str, Any]
) -> None:
    complete(tmp_path, toy_spec(tmp_path, training=training))
    ours = outcome(tmp_path)["results"]
    assert ours["evalLoss"] < ours["baselineEvalLoss"] - 0.1
    assert (ours["evalLoss"] == plain["evalLoss"]) == exactly, "it was heeded, and checkpointing changes no figure"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same run ends with when nothing of it is said."""
    home = tmp_path_factory.mktemp("plain")
    complete(home, toy_spec(home))
    return dict(outcome(home)["results"])


def test_a_head_that_is_not_known_to_copy_is_found_out_before_anything_is_trained(tmp_path: Path) -> None:
    def forget(teller: Any) -> None:
        from lmft_job.tasks.causal_lm import CausalLM

        CausalLM.unfit_types = frozenset()

    spec = toy_spec(tmp_path)
    spec["model"]["fromConfig"] = {
        "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    child = attempt(tmp_path, spec, patch=forget)
    assert child.wait() == 2
    assert "CausalLM does not work with a model of type bart; its loss scores each" in child.result["message"]
    assert not child.said("baseline")


def test_without_memory_for_a_batch_of_one_the_run_ends_with_exit_4(tmp_path: Path) -> None:
    training = {"perDeviceBatchSize": 2, "gradientCheckpointing": False}
    child = attempt(tmp_path, toy_spec(tmp_path, training=training), patch=short_of_memory(0))
    assert child.wait() == 4
    assert child.result["reason"] == "AcceleratorOutOfMemory"
    assert "gradientCheckpointing" in child.result["message"]


@pytest.mark.parametrize(
    ("error", "shortage"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_shortage_is_known_by_its_kind_or_its_words(error: RuntimeError, shortage: bool) -> None:
    assert is_shortage(error) == shortage


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_too_little_memory_of_the_machine_is_told_as_such(error: Exception) -> None:
    def fail() -> Any:
        raise error

    ending = conclude(fail, Interrupt())
    assert ending.result.reason == "OutOfMemory"
    assert "spec.resources.memory" in ending.result.message


@pytest.mark.parametrize(
    ("before", "after"),
    [(Batch(8), Batch(4, 2)), (Batch(5), Batch(1, 5)), (Batch(6, 2), Batch(3, 4)), (Batch(7, 2), Batch(2, 7))],
)
def test_a_smaller_batch_keeps_the_rows_of_a_step(before: Batch, after: Batch) -> None:
    assert before.smaller() == after
    assert after.rows * after.accumulation == before.rows * before.accumulation


def test_no_batch_is_smaller_than_one() -> None:
    with pytest.raises(AcceleratorMemoryError, match="batch of 1"):
        Batch(1, 8).smaller()


def test_a_run_in_which_nothing_moves_is_ended_by_the_watchdog_with_stacks_in_the_log(tmp_path: Path) -> None:
    def hang(teller: Any) -> None:
        import time

        from lmft_job.training.trainer import RecipeTrainer

        original = RecipeTrainer.training_step

        def training_step(self: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == 2:
                time.sleep(600)
            return original(self, *args, **options)

        RecipeTrainer.training_step = training_step  # type: ignore[method-assign]

    child = attempt(tmp_path, toy_spec(tmp_path, training={"watchdogSeconds": 5}), patch=hang)
    assert child.wait() == 7
    assert child.said("hung hung: nothing moved")
    stacks = child.log.read_text()
    assert "most recent call first" in stacks
    assert "in training_step" in stacks


def test_a_full_disk_ends_the_attempt_as_one_worth_another_and_keeps_what_was_stored(tmp_path: Path) -> None:
    def fill_up(teller: Any) -> None:
        import errno

        from transformers import PreTrainedModel

        original = PreTrainedModel.save_pretrained

        saved = []

        def save_pretrained(self: Any, folder: Any, *args: Any, **options: Any) -> Any:
            saved.append(folder)
            if len(saved) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(self, folder, *args, **options)

        PreTrainedModel.save_pretrained = save_pretrained  # type: ignore[method-assign]

    child = attempt(tmp_path, toy_spec(tmp_path), patch=fill_up)
    assert child.wait() == 6
    assert "no space left" in child.result["message"]
    assert child.result["checkpoint"]["step"] == 5
    assert complete(tmp_path, toy_spec(tmp_path), 2).said("resumed from step 5")


def test_early_stopping_and_best_weights_keep_the_best(tmp_path: Path) -> None:
    spec = toy_spec(
        tmp_path,
        training={"epochs": 8, "learningRate": "0.3", "earlyStoppingPatience": 1, "scheduler": "Constant"},
        output={"weights": "Best"},
    )
    complete(tmp_path, spec)
    report = json.loads((run_folder(tmp_path) / "report.json").read_text())
    losses = [evaluation["evalLoss"] for evaluation in report["evaluations"]]
    assert report["training"]["steps"] < report["training"]["totalSteps"]
    assert len(losses) - 1 - losses.index(min(losses)) == 1
    assert report["results"]["evalLoss"] == min(losses)


def test_a_run_that_a_callback_ends_between_two_evaluations_is_evaluated_there(tmp_path: Path) -> None:
    # given a loss of one's own, and a callback that has seen enough after three steps
    (tmp_path / "their_code.py").write_text(
        "from transformers import Trainer, TrainerCallback\n"
        "class Doubled(Trainer):\n"
        "    def compute_loss(self, model, inputs, return_outputs=False, **options):\n"
        "        outputs = model(**inputs)\n"
        "        return (2 * outputs.loss, outputs) if return_outputs else 2 * outputs.loss\n"
        "class Enough(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **options):\n"
        "        control.should_training_stop = state.global_step == 3\n"
    )
    theirs = {"trainerClass": "their_code.Doubled", "callbacks": ["their_code.Enough"]}
    spec = toy_spec(tmp_path, "SequenceClassification", training=theirs)
    # when it runs
    complete(tmp_path, spec, patch=lambda teller: sys.path.insert(0, str(tmp_path)), allow_user_code=True)
    # then its figures are those of step 3, the class's own loss included
    report = json.loads((run_folder(tmp_path) / "report.json").read_text())
    assert [evaluation["step"] for evaluation in report["evaluations"]] == [3]
    results = report["results"]
    assert results["evalLoss"] == report["evaluations"][0]["evalLoss"]
    assert results["trainerEvalLoss"] == pytest.approx(2 * results["evalLoss"], rel=1e-5)
