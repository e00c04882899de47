"""Figures one can trust: every number of a report recomputed with datasets and transformers alone, for each task.

The tutorial is done again beside the run: its split, its ``map`` calls, its ``Trainer``. Only the masks of masked
language modelling are taken from the run's code, since they are what defines that data.
"""

import importlib
import json
import math
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from support.forked import TEXTS, complete, run_folder, toy_spec

from lmft_api.figures import FIGURES
from lmft_api.wire.report import ResultFigures
from lmft_job.data.masking import EVALUATION_EPOCH, Masker
from lmft_job.evaluation.held_out import HeldOutFigures
from lmft_job.training.history import LOSSES_FILE, EvaluationPoint, TrainingHistory

SEED, BATCH, BLOCK, EPOCHS = 3, 4, 16, 2
AUTO = {
    "CausalLM": transformers.AutoModelForCausalLM,
    "MaskedLM": transformers.AutoModelForMaskedLM,
    "SequenceClassification": transformers.AutoModelForSequenceClassification,
}


class Rows(torch.utils.data.Dataset[Any]):
    """Rows as a Trainer takes them; ``of`` makes one from its number and the epoch."""

    def __init__(self, count: int, of: Any) -> None:
        self.count, self.of, self.epoch = count, of, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.of(index, self.epoch)


@dataclass
class Recomputed:
    """The tutorial's way to the same figures."""

    home: Path
    task: str
    kind: type[transformers.Trainer] = transformers.Trainer
    eval_losses: list[tuple[float, float | None]] = field(default_factory=list)

    @cached_property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((run_folder(self.home) / "report.json").read_text()))

    @cached_property
    def tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(run_folder(self.home) / "model")

    @cached_property
    def sides(self) -> tuple[Any, Any]:
        """Tokenised texts to train on and held out; labels of the second task are their names' numbers."""
        data = datasets.Dataset.from_json(str(self.home / "texts.jsonl"), cache_dir=str(self.home / "datasets"))
        split = data.train_test_split(test_size=0.2, seed=SEED)
        known = sorted(set(data["label"]))

        def tokenise(rows: Any) -> Any:
            ids = self.tokenizer(rows["text"])["input_ids"]
            return {"input_ids": ids, "labels": [known.index(label) for label in rows["label"]]}

        made = [side.map(tokenise, batched=True, remove_columns=data.column_names) for side in split.values()]
        return made[0], made[1]

    def blocks(self, side: Any) -> list[list[int]]:
        """The tutorial's ``group_texts``."""
        joined = list(chain(*side["input_ids"]))
        return [joined[at : at + BLOCK] for at in range(0, len(joined) // BLOCK * BLOCK, BLOCK)]

    def rows(self, side: Any, *, training: bool) -> Rows:
        if self.task == "SequenceClassification":
            return Rows(len(side), lambda index, epoch: side[index])
        blocks = self.blocks(side)
        if self.task == "CausalLM":
            return Rows(len(blocks), lambda index, epoch: {"input_ids": blocks[index], "labels": blocks[index]})
        tokenizer = self.tokenizer
        masker = Masker(SEED, 0.15, len(tokenizer), tokenizer.mask_token_id, tokenizer.all_special_ids)

        def masked(index: int, epoch: int) -> dict[str, list[int]]:
            ids = torch.tensor(blocks[index]).numpy()
            inputs, labels = masker(ids, epoch if training else EVALUATION_EPOCH, index)
            return {"input_ids": inputs.tolist(), "labels": labels.tolist()}

        return Rows(len(blocks), masked)

    @cached_property
    def train_rows(self) -> Rows:
        return self.rows(self.sides[0], training=True)

    @cached_property
    def held_out(self) -> Rows:
        return self.rows(self.sides[1], training=False)

    def untrained(self) -> Any:
        """The model as it is drawn from the seed."""
        config = transformers.AutoConfig.from_pretrained(run_folder(self.home) / "model")
        transformers.set_seed(SEED)
        return AUTO[self.task].from_config(config)

    def trained(self) -> Any:
        """The model that the run saved."""
        return AUTO[self.task].from_pretrained(run_folder(self.home) / "model")

    def figures(self, model: Any) -> tuple[float, float | None]:
        """Mean loss over all targets, and accuracy; row by row, in double precision, nothing padded."""
        units = self.units(model)
        loss = math.fsum(loss for loss, _, _ in units) / sum(count for _, count, _ in units)
        right = [hit for _, _, hit in units if hit is not None]
        return loss, sum(right) / len(right) if right else None

    def units(self, model: Any) -> list[tuple[float, int, float | None]]:
        """Loss and number of targets of every held-out block or row, and whether it is labelled right."""
        units = []
        model.eval()
        with torch.no_grad():
            for row in (self.held_out[index] for index in range(len(self.held_out))):
                logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
                labels, hit = torch.tensor(row["labels"]), None
                if self.task == "SequenceClassification":
                    logits, labels = logits[None] if logits.dim() == 1 else logits, labels[None]
                    hit = float(logits.argmax() == labels[0])
                elif self.task == "CausalLM":
                    logits, labels = logits[:-1], labels[1:]
                losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != -100].tolist()
                units.append((math.fsum(losses), len(losses), hit))
        return units

    @cached_property
    def trainer(self) -> Any:
        """The tutorial's call, trained; every evaluation's figures are noted."""
        rows = self.train_rows
        if self.task == "SequenceClassification":
            collator: Any = transformers.DataCollatorWithPadding(self.tokenizer)
        else:
            collator = transformers.default_data_collator

        class Notes(transformers.TrainerCallback):  # type: ignore[misc]
            def on_epoch_begin(note, args: Any, state: Any, control: Any, **more: Any) -> None:
                rows.epoch = round(state.epoch)

            def on_evaluate(note, args: Any, state: Any, control: Any, model: Any, **more: Any) -> None:
                with torch.random.fork_rng():
                    self.eval_losses.append(self.figures(model))
                model.train()

        arguments = transformers.TrainingArguments(
            output_dir=str(self.home / "plain"), num_train_epochs=EPOCHS, learning_rate=1e-3, weight_decay=0.01,
            seed=SEED, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, logging_steps=1,
            eval_strategy="epoch", save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = self.kind(
            model=self.untrained(), args=arguments, train_dataset=rows, eval_dataset=self.held_out,
            data_collator=collator, callbacks=[Notes()],
            compute_metrics=self._accuracy if self.task == "SequenceClassification" else None,
        )  # fmt: skip
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
        return trainer

    def logged(self, name: str) -> list[float]:
        """A figure as the plain Trainer logged it, in order."""
        return [entry[name] for entry in self.trainer.state.log_history if name in entry]

    @staticmethod
    def _accuracy(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


@pytest.fixture(scope="module", params=[*AUTO, "trainerClass"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recomputed:
    """A run that is done: one of each task, and one with a trainer class that has a loss of its own."""
    home = tmp_path_factory.mktemp("figures")
    training: dict[str, Any] = {"weightDecay": "0.01", "seed": SEED, "epochs": EPOCHS, "perDeviceBatchSize": BATCH}
    task, kind = request.param, transformers.Trainer
    if task == "trainerClass":
        task, kind = "SequenceClassification", user_trainer()
        training["trainerClass"] = "examples.user_trainer.SmoothedLossTrainer"
    spec = toy_spec(home, task, training=training, checkpoint={"everySteps": 1000})
    complete(home, spec, allow_user_code=True)
    return Recomputed(home, task, kind)


def user_trainer() -> type[transformers.Trainer]:
    """The example's class; the forked attempt finds it where we do."""
    root = str(Path(__file__).parents[3])
    if root not in sys.path:
        sys.path.append(root)
    kind: type[transformers.Trainer] = importlib.import_module("examples.user_trainer").SmoothedLossTrainer
    return kind


def test_every_figure_of_the_table_is_measured_under_the_name_that_the_report_has() -> None:
    figures = HeldOutFigures(2.0, 2.1, 7.39, 0.5, 0.1, 0.2, 0.3, 0.4)
    names = figures.by_name()

    assert {name for kind in FIGURES for name in (kind.name, kind.standard_error)} <= names.keys()
    assert names.keys() <= ResultFigures.model_fields.keys()
    assert None not in names.values()


def test_a_checkpoint_holds_all_that_was_measured() -> None:
    point = EvaluationPoint(40, 1.5, 2.2, HeldOutFigures(2.0, 2.1, 7.39, 0.5, 0.1, 0.2, 0.3, 0.4))

    assert point.to_json() == asdict(point)
    assert EvaluationPoint.from_json(point.to_json()) == point


def test_the_loss_curve_is_that_of_a_plain_trainer(run: Recomputed) -> None:
    [path] = run_folder(run.home).glob(f"checkpoints/*/*/*/{LOSSES_FILE}")
    ours, plain = list(TrainingHistory.load(path.parent).losses), run.logged("loss")
    assert len(ours) == len(plain) == run.report["training"]["steps"]
    # What Trainer logs is rounded to four digits, hence half a unit more than the promise.
    assert max(abs(a - b) for a, b in zip(ours, plain, strict=True)) < 1e-4


def test_the_evaluations_are_those_of_a_plain_trainer(run: Recomputed) -> None:
    plain, evaluations = run.logged("eval_loss"), run.report["evaluations"]
    results = run.report["results"]
    assert results["trainerEvalLoss"] == pytest.approx(plain[-1], abs=1e-4)
    assert len(evaluations) == len(plain) == EPOCHS
    for evaluation, (loss, accuracy) in zip(evaluations, run.eval_losses, strict=True):
        assert evaluation["evalLoss"] == pytest.approx(loss, abs=1e-4)
        assert evaluation.get("accuracy") == accuracy
        assert evaluation.get("perplexity") == (
            None if accuracy is not None else pytest.approx(math.exp(loss), rel=1e-4)
        )
    steps = run.report["training"]["steps"] // EPOCHS
    curve = run.logged("loss")
    for number, evaluation in enumerate(evaluations, 1):
        assert (evaluation["step"], evaluation["epoch"]) == (number * steps, number)
        mean = sum(curve[(number - 1) * steps : number * steps]) / steps
        assert evaluation["trainLoss"] == pytest.approx(mean, abs=1e-4)


def test_the_results_are_those_of_the_saved_model_and_of_the_one_before(run: Recomputed) -> None:
    results = run.report["results"]
    loss, accuracy = run.figures(run.trained())
    before, accuracy_before = run.figures(run.untrained())
    assert results["evalLoss"] == pytest.approx(loss, abs=1e-5)
    assert results["baselineEvalLoss"] == pytest.approx(before, abs=1e-5)
    if run.task == "SequenceClassification":
        assert (results["accuracy"], results["baselineAccuracy"]) == (accuracy, accuracy_before)
        assert "perplexity" not in results
        assert results["accuracy"] == run.logged("eval_accuracy")[-1]
    else:
        assert results["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
        assert results["baselinePerplexity"] == pytest.approx(math.exp(before), rel=1e-4)
        assert "accuracy" not in results


def test_standard_errors_are_those_of_the_blocks_or_rows(run: Recomputed) -> None:
    """scipy's and every textbook's: the spread of the units' means by the root of their number."""
    results = run.report["results"]
    after, before = run.units(run.trained()), run.units(run.untrained())
    for name, units in (("evalLoss", after), ("baselineEvalLoss", before)):
        # A block without a masked token counts nothing.
        means = np.array([loss / count for loss, count, _ in units if count])
        targets = np.array([count for _, count, _ in units if count])
        mean = results[name]
        # Blocks of masked language modelling differ in their targets, and weigh as many as they have.
        spread = np.sqrt(len(means) / (len(means) - 1) * ((targets * (means - mean)) ** 2).sum()) / targets.sum()
        assert results[f"{name}StandardError"] == pytest.approx(spread, rel=1e-3)
    if run.task == "SequenceClassification":
        share, rows = results["accuracy"], len(after)
        assert 0 < share < 1
        assert results["accuracyStandardError"] == pytest.approx(math.sqrt(share * (1 - share) / (rows - 1)))
        changed = np.array([late[2] - early[2] for late, early in zip(after, before, strict=True)])
        assert results["accuracyChangeStandardError"] == pytest.approx(changed.std(ddof=1) / math.sqrt(rows))
    else:
        off = results["perplexity"] * results["evalLossStandardError"]
        assert results["perplexityStandardError"] == pytest.approx(off)
    if run.task != "MaskedLM":
        changes = [late[0] / late[1] - early[0] / early[1] for late, early in zip(after, before, strict=True)]
        spread = np.std(changes, ddof=1) / math.sqrt(len(changes))
        assert results["evalLossChangeStandardError"] == pytest.approx(spread, rel=1e-3)


def test_a_trainer_classs_own_loss_stands_beside_the_models(run: Recomputed) -> None:
    results, page = run.report["results"], (run_folder(run.home) / "report.html").read_text()
    own = run.kind is not transformers.Trainer
    name = "SmoothedLossTrainer" if own else "a plain Trainer"
    assert f"Held-out loss as {name} reports it" in page
    assert (f"{name} decides what is trained on" in page) == own
    # Every row has one target, so a plain Trainer's weights make no difference there.
    same = results["trainerEvalLoss"] == pytest.approx(results["evalLoss"], abs=1e-6)
    assert same == (run.task == "SequenceClassification" and not own)


def test_the_samples_are_what_transformers_answers(run: Recomputed) -> None:
    [sample] = run.report["results"]["samples"]
    assert sample["before"] == answer(run, run.untrained(), sample["prompt"])
    assert sample["after"] == answer(run, run.trained(), sample["prompt"])


def answer(run: Recomputed, model: Any, prompt: str) -> str:
    """What the library's own pipelines and ``generate`` say."""
    tokenizer, model = run.tokenizer, model.eval()
    if run.task == "CausalLM":
        torch.manual_seed(run.report["provenance"]["seed"])
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, do_sample=True, max_new_tokens=6, top_k=50, top_p=0.95)
        return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    if run.task == "MaskedLM":
        fill = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, device="cpu")
        fills = fill(prompt.replace("<mask>", tokenizer.mask_token), top_k=3)
        return ", ".join(f"{entry['token_str'].strip()} ({entry['score']:.3f})" for entry in fills)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    [best] = classify(prompt)
    return f"{best['label']} ({best['score']:.3f})"


def test_rows_blocks_tokens_and_steps_are_those_of_the_tutorials_own_preprocessing(run: Recomputed) -> None:
    data, training = run.report["dataset"], run.report["training"]
    train, held_out = run.sides
    assert (data["trainRows"], data["evalRows"], data["droppedRows"]) == (len(train), len(held_out), 0)
    assert data["trainRows"] + data["evalRows"] == len(TEXTS)
    lengths = [len(ids) for ids in train["input_ids"]]
    assert (data["lengths"]["minimum"], data["lengths"]["maximum"]) == (min(lengths), max(lengths))
    assert data["lengths"]["mean"] == pytest.approx(sum(lengths) / len(lengths))
    if run.task == "SequenceClassification":
        tokens, rows = sum(lengths), len(train)
        assert "trainBlocks" not in data
        assert data["labels"] == ["cold", "warm"]
    else:
        blocks = run.blocks(train)
        tokens, rows = len(blocks) * BLOCK, len(blocks)
        assert (data["trainBlocks"], data["evalBlocks"]) == (len(blocks), len(run.blocks(held_out)))
    assert data["trainTokens"] == tokens
    assert training["tokens"] == EPOCHS * tokens, "padding is no token"
    assert training["steps"] == training["totalSteps"] == EPOCHS * math.ceil(rows / BATCH)
    assert training["epochs"] == EPOCHS
    assert training["tokensPerSecond"] > 0
    assert run.report["provenance"]["seed"] == SEED
    assert all(seconds >= 0 for seconds in run.report["timings"].values())
    assert run.report["peakMemory"]["process"] > 100 << 20  # torch alone takes more
