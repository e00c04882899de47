"""The whole recipe on toy models: figures that can be recomputed, stages, user code, and refusals that cost nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.forked import attempt, complete, run_folder, toy_spec

from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import limit_threads_to_cpu_quota


def report_of(home: Path, name: str = "toy") -> dict[str, Any]:
    """The run's report.json."""
    return dict(json.loads((run_folder(home, name) / "report.json").read_text()))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A causal run that is done, and its last child."""
    home = tmp_path_factory.mktemp("done")
    child = complete(home, toy_spec(home))
    return home, child


def test_the_model_folder_loads_as_a_pipeline_and_carries_a_card(done: tuple[Path, Any]) -> None:
    folder = run_folder(done[0]) / "model"
    generate = transformers.pipeline("text-generation", model=str(folder), device="cpu")
    assert generate("The river", max_new_tokens=3)[0]["generated_text"].startswith("The river")
    assert "perplexity" in (folder / "README.md").read_text().lower()
    assert (run_folder(done[0]) / "report.html").read_text().startswith("<!")


def test_a_finished_run_answers_with_its_result_at_once(done: tuple[Path, Any]) -> None:
    home, first = done
    again = attempt(home, toy_spec(home), 2)
    assert again.wait() == 0
    assert again.result["results"] == first.result["results"]
    assert not any(line.startswith(("step", "baseline")) for line in again.lines)


def test_the_job_tells_what_it_is_doing(done: tuple[Path, Any]) -> None:
    phases = [line.removeprefix("phase ") for line in done[1].lines if line.startswith("phase ")]
    before, after = ["Sampling", "Evaluating"], ["Sampling", "Saving"]
    assert phases == [*before, "Training", *["Evaluating", "Training"] * 2, *after]


def test_every_step_and_every_evaluation_is_a_line_of_the_metrics(done: tuple[Path, Any]) -> None:
    report = report_of(done[0])
    lines = [json.loads(line) for line in (run_folder(done[0]) / "metrics.jsonl").read_text().splitlines()]

    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, report["training"]["steps"] + 1))
    assert all(line["gradientNorm"] > 0 and line["tokensPerSecond"] > 0 and line["epoch"] > 0 for line in steps)
    # a linear schedule without warm-up: the first step has all of the rate, the last one the smallest share
    rate = report["spec"]["training"]["learningRate"]
    assert [steps[0]["learningRate"], steps[-1]["learningRate"]] == pytest.approx([rate, rate / len(steps)])
    before, *measured = [line for line in lines if "evaluation" in line]
    assert (before["step"], before["evaluation"]["evalLoss"]) == (0, report["results"]["baselineEvalLoss"])
    assert [line["evaluation"]["evalLoss"] for line in measured] == [row["evalLoss"] for row in report["evaluations"]]


def test_the_report_has_a_version_and_the_manifests_own_names(done: tuple[Path, Any]) -> None:
    report = report_of(done[0])
    assert report["format"] == 1
    assert report["spec"]["training"]["perDeviceBatchSize"] == report["settings"]["training.per_device_batch_size"]
    assert report["spec"]["dataset"]["files"] == report["settings"]["dataset.files"]
    assert report["spec"]["model"]["fromConfig"] == report["settings"]["model.from_config"]
    assert report["spec"]["resources"] == {"gpusPerNode": 0}


def test_the_report_has_the_lengths_of_the_texts_and_a_row_as_the_model_sees_it(done: tuple[Path, Any]) -> None:
    data = report_of(done[0])["dataset"]
    ((segment,),) = [example["segments"] for example in data["examples"]]
    assert data["lengths"]["limit"] == report_of(done[0])["settings"]["dataset.block_size"]
    assert sum(texts for _, texts in data["lengths"]["histogram"]) == data["trainRows"]
    assert segment["text"]
    assert not segment["trained"]


def test_only_the_last_checkpoint_stays_after_success(done: tuple[Path, Any]) -> None:
    manifests = list(run_folder(done[0]).glob("checkpoints/*/*/MANIFEST.json"))
    assert [path.parent.name for path in manifests] == [f"step-{report_of(done[0])['training']['steps']:08d}"]


def test_prepare_and_train_give_the_figures_of_one_go(done: tuple[Path, Any], tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    prepared = complete(tmp_path, spec, stage=Stage.PREPARE)
    assert prepared.result["provenance"]["datasetFingerprint"]
    assert not any(line.startswith(("step", "baseline")) for line in prepared.lines)
    (tmp_path / "texts.jsonl").unlink()  # the train stage does not look at the source again
    complete(tmp_path, spec, 2, stage=Stage.TRAIN)
    assert report_of(tmp_path)["results"]["perplexity"] == report_of(done[0])["results"]["perplexity"]


def test_classification_reports_accuracy_and_labels(tmp_path: Path) -> None:
    complete(tmp_path, toy_spec(tmp_path, "SequenceClassification", checkpoint={"everySteps": 50}))
    results = report_of(tmp_path)["results"]
    assert 0 <= results["accuracy"] <= 1
    assert "perplexity" not in results
    assert results["samples"][0]["after"].split(" ")[0] in ("cold", "warm")
    *_, label = report_of(tmp_path)["dataset"]["examples"][0]["segments"]
    assert (label["text"] in ("cold", "warm"), label["trained"]) == (True, True)
    classify = transformers.pipeline("text-classification", model=str(run_folder(tmp_path) / "model"), device="cpu")
    assert classify("The river")[0]["label"] in ("cold", "warm")


def test_user_code_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    spec = toy_spec(
        tmp_path,
        "SequenceClassification",
        training={
            "maxSteps": 4,
            "trainerClass": "examples.user_trainer.SmoothedLossTrainer",
            "callbacks": ["examples.user_trainer.PrintEveryEpoch"],
        },
    )
    del spec["training"]["epochs"]
    refused = attempt(tmp_path, spec)
    assert refused.wait() == 2
    assert "spec.training.trainerClass" in refused.result["message"]
    assert "spec.training.callbacks[0]" in refused.result["message"]
    assert not run_folder(tmp_path).exists()

    def find_examples(teller: Any) -> None:
        import sys

        sys.path.insert(0, str(Path(__file__).parents[2]))

    child = complete(tmp_path, spec, 2, patch=find_examples, allow_user_code=True)
    assert "done after 4 steps" in child.log.read_text()


def test_a_gpu_that_is_not_there_is_missed_in_a_pod(tmp_path: Path) -> None:
    child = attempt(tmp_path, toy_spec(tmp_path, resources={"gpusPerNode": 1}))
    assert child.wait() == 3
    assert child.result["reason"] == "AcceleratorMissing"


@pytest.mark.parametrize(("quota", "threads"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_cpu_quota_bounds_the_threads(
    quota: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    limit_threads_to_cpu_quota(tmp_path / "cpu.max")
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == threads
