"""The loss curve is the tutorial's, and what departs from it is refused, repaired or told."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from job.forked import attempt, complete, outcome, run_folder, toy_spec

from lmft_job.errors import AcceleratorMemoryError
from lmft_job.memory import Batch
from lmft_job.run_state import LOSSES_FILE, RunState


@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM"])
def test_loss_curve_and_eval_loss_equal_those_of_a_plain_trainer(task: str, tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, task, training={"weightDecay": "0.01", "seed": 3})
    complete(tmp_path, spec)
    ours = _losses(tmp_path)
    report = json.loads((run_folder(tmp_path) / "report.json").read_text())
    curve, eval_loss = _plain_trainer(tmp_path, task, seed=3)
    assert len(ours) == len(curve)
    assert max(abs(a - b) for a, b in zip(ours, curve, strict=True)) < 1e-4
    assert report["results"]["trainerEvalLoss"] == pytest.approx(eval_loss, abs=1e-4)


def _losses(home: Path) -> list[float]:
    [path] = run_folder(home).glob(f"checkpoints/*/*/{LOSSES_FILE}")
    return list(RunState.load(path.parent).losses)


def _plain_trainer(home: Path, task: str, seed: int) -> tuple[list[float], float]:
    """The tutorial's call on the same blocks and masks; per-step training loss and final eval_loss."""
    folder = run_folder(home) / "model"
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.set_seed(seed)
    auto = transformers.AutoModelForCausalLM if task == "CausalLM" else transformers.AutoModelForMaskedLM
    model = auto.from_config(config)
    train, held_out = _rows(home, task, seed)
    arguments = transformers.TrainingArguments(
        output_dir=str(home / "plain"), num_train_epochs=2, learning_rate=1e-3, weight_decay=0.01, seed=seed,
        per_device_train_batch_size=4, per_device_eval_batch_size=4, logging_steps=1, eval_strategy="epoch",
        save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=train, eval_dataset=held_out, data_collator=_Collator(train)
    )
    train.trainer = trainer
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    trainer.train()
    history = trainer.state.log_history
    return [e["loss"] for e in history if "loss" in e], [e["eval_loss"] for e in history if "eval_loss" in e][-1]


class _Rows(torch.utils.data.Dataset[Any]):
    """Rows under plain indices; masks of the epoch that the trainer is in, as a dynamic collator would draw them."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.trainer: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        epoch = math.floor((self.trainer.state.epoch or 0.0) + 1e-9) if self.trainer else 0
        return self.rows[epoch * len(self.rows) + index] if self.trainer else self.rows[index]


class _Collator:
    def __init__(self, rows: _Rows) -> None:
        self.rows = rows

    def __call__(self, items: list[Any]) -> dict[str, torch.Tensor]:
        return {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in items[0]}


def _rows(home: Path, task: str, seed: int) -> tuple[_Rows, _Rows]:
    from lmft_job.data.masking import MaskedBlocks, Masker
    from lmft_job.data.rows import BlockRows

    [folder] = (home / "cache" / "prepared").iterdir()
    if task == "CausalLM":
        return _Rows(BlockRows(folder / "train.arrow")), _Rows(BlockRows(folder / "eval.arrow"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_folder(home) / "model")
    masker = Masker(seed, 0.15, len(tokenizer), tokenizer.mask_token_id, tokenizer.all_special_ids)
    return (
        _Rows(MaskedBlocks(folder / "train.arrow", masker, fixed=False)),
        _Rows(MaskedBlocks(folder / "eval.arrow", masker, fixed=True)),
    )


def test_a_learning_rate_that_diverges_ends_with_exit_5_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, checkpoint={"everySteps": 1}, training={"learningRate": "10", "maxGradNorm": "1000000"})

    def poison(teller: Any) -> None:
        # A number that no clipping tames: the loss is infinite from step 4 on.
        from lmft_job.training import RunTrainer

        original = RunTrainer.compute_loss

        def compute_loss(self: Any, *args: Any, **options: Any) -> Any:
            loss = original(self, *args, **options)
            return loss * math.inf if self.state.global_step >= 3 else loss

        RunTrainer.compute_loss = compute_loss  # type: ignore[method-assign]

    child = attempt(tmp_path, spec, patch=poison)
    assert child.wait() == 5
    assert child.result["reason"] == "Diverged"
    assert "learningRate" in child.result["message"]
    kept = sorted(path.parent.name for path in run_folder(tmp_path).glob("checkpoints/*/*/MANIFEST.json"))
    assert kept[-1] == "step-00000003"


def test_without_accelerator_memory_the_batch_is_halved_and_the_figures_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_spec(tmp_path)
    # Dropout draws other masks for other batches.
    spec["model"]["fromConfig"] |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    complete(tmp_path, spec, name="calm")
    monkeypatch.setenv("LMFT_TESTING", "1")
    monkeypatch.setenv("LMFT_TEST_LARGEST_BATCH", "2")
    child = complete(tmp_path, spec)
    assert "restart" in child.lines
    [note] = child.result["adjustments"]
    assert "perDeviceBatchSize 4 → 2, gradientAccumulationSteps 1 → 2" in note
    halved, calm = outcome(tmp_path)["results"], outcome(tmp_path, "calm")["results"]
    assert halved["perplexity"] == pytest.approx(calm["perplexity"], rel=1e-3)


def test_without_memory_for_a_batch_of_one_the_run_ends_with_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMFT_TESTING", "1")
    monkeypatch.setenv("LMFT_TEST_LARGEST_BATCH", "0")
    child = attempt(tmp_path, toy_spec(tmp_path, training={"perDeviceBatchSize": 2}))
    assert child.wait() == 4
    assert child.result["reason"] == "AcceleratorOutOfMemory"
    assert "gradientCheckpointing" in child.result["message"]


def test_the_shortage_hook_does_nothing_outside_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFT_TEST_LARGEST_BATCH", "0")
    child = complete(tmp_path, toy_spec(tmp_path, training={"maxSteps": 4}))
    assert "adjustments" not in child.result


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

        from lmft_job.training import RunTrainer

        original = RunTrainer.training_step

        def training_step(self: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == 2:
                time.sleep(600)
            return original(self, *args, **options)

        RunTrainer.training_step = training_step  # type: ignore[method-assign]

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

        def save_pretrained(self: Any, folder: Any, *args: Any, **options: Any) -> Any:
            if "checkpoint-10" in str(folder):
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
