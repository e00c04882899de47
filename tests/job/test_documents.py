"""Runs whose documents do not see each other, from the manifest to the published model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.forked import complete, killed_at_random_steps, outcome, run_folder, toy_spec

from lmft_api.wire.report import Report
from lmft_job.data.isolated.blocks import DocumentBlocks


def isolated_spec(home: Path, **sections: Any) -> dict[str, Any]:
    return toy_spec(home, dataset={"isolateDocuments": True}, **sections)


def test_the_figure_is_that_of_each_document_alone_and_the_report_says_so(tmp_path: Path) -> None:
    # given a run with weights that are trained with passes of different numbers of targets
    training = {"epochs": 3, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 2}
    complete(tmp_path, isolated_spec(tmp_path, training=training))
    folder = run_folder(tmp_path)
    report = Report.from_json((folder / "report.json").read_bytes())
    # when the published model reads every held-out document of a block by itself
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    (file,) = (tmp_path / "cache").rglob("eval.arrow")
    blocks, losses, count = DocumentBlocks(file), 0.0, 0
    with torch.no_grad():
        for item in (blocks[row] for row in range(len(blocks))):
            for ids in torch.from_numpy(item["input_ids"]).split(item["lengths"].tolist()):
                if len(ids) > 1:
                    losses += float(model(input_ids=ids[None], labels=ids[None]).loss) * (len(ids) - 1)
                    count += len(ids) - 1
    # then the reported loss is the mean over their tokens
    assert (report.dataset.eval_targets, report.training.tokens) == (count, 3 * report.dataset.train_tokens)
    assert losses / count == pytest.approx(report.results.eval_loss, abs=1e-5)
    assert (report.results.eval_loss or 9) < (report.results.baseline_eval_loss or 0)
    card, page = ((folder / name).read_text() for name in ("model/README.md", "report.html"))
    assert "in FP32, documents isolated; weights saved" in card
    assert "dataset.isolateDocuments" in card
    assert "documents isolated" in page
    assert "attention can reach" not in page + card


def test_losses_do_not_depend_on_how_a_step_is_split(tmp_path: Path) -> None:
    config = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    for name, batch, passes in (("whole", 4, 1), ("split", 1, 4)):
        training = {"perDeviceBatchSize": batch, "gradientAccumulationSteps": passes}
        spec = isolated_spec(tmp_path, training=training)
        spec["model"]["fromConfig"] |= config
        complete(tmp_path, spec, name=name)
    whole, split = (
        Report.from_json((run_folder(tmp_path, name) / "report.json").read_bytes()) for name in ("whole", "split")
    )
    assert split.results.eval_loss == pytest.approx(whole.results.eval_loss, abs=1e-5)
    for one, other in zip(whole.evaluations, split.evaluations, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, abs=1e-5)


def test_a_run_that_is_killed_ends_bit_equal(tmp_path: Path) -> None:
    spec = isolated_spec(tmp_path, training={"epochs": 4}, checkpoint={"everySteps": 3})
    complete(tmp_path, spec, name="calm")
    killed_at_random_steps(tmp_path, spec, 3)

    last = complete(tmp_path, spec, 4)

    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
