"""Weights divided among ranks (FSDP): the same losses and figures, and any number of ranks resumes from them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers
from safetensors.torch import load_file
from support.comparing import losses, report, sure
from support.forked import complete, outcome, run_folder, toy_spec
from support.ranks import complete_ranks, stopped
from support.tiny_bases import save_base

pytestmark = pytest.mark.timeout(900)
FSDP = {"parallelism": "FSDP"}


def test_divided_weights_train_as_whole_ones_do(tmp_path: Path) -> None:
    # given runs of one process, whose rows do not divide evenly
    for task in ("CausalLM", "MaskedLM"):
        complete(tmp_path, sure(tmp_path, task=task, training={"perDeviceBatchSize": 12}), name=f"{task}-one".lower())
        # when several ranks hold a share of the weights each, and take two passes in a step
        size = 2 if task == "CausalLM" else 3
        training = {"perDeviceBatchSize": 12 // size // 2, "gradientAccumulationSteps": 2, **FSDP}
        if task == "CausalLM":
            training["gradientCheckpointing"] = True
        name = f"{task}-several".lower()
        complete_ranks(tmp_path, sure(tmp_path, task=task, training=training), size, name=name)
        # then every step has the same loss, and the figures and samples are the same
        one, several = (report(tmp_path, f"{task}-{which}".lower()) for which in ("one", "several"))
        assert list(losses(tmp_path, name)) == pytest.approx(list(losses(tmp_path, f"{task}-one".lower())), abs=1e-5)
        assert several["training"]["tokens"] == one["training"]["tokens"]
        assert several["results"]["baselineEvalLoss"] == pytest.approx(one["results"]["baselineEvalLoss"], abs=1e-6)
        assert several["results"]["evalLoss"] == pytest.approx(one["results"]["evalLoss"], abs=1e-5)
        assert several["results"]["samples"] == one["results"]["samples"]
    # and the model is an ordinary one
    folder = run_folder(tmp_path, "causallm-several") / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is transformers.GPT2LMHeadModel
    assert model.config.architectures == ["GPT2LMHeadModel"]
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    # and torch reads the parts of the checkpoint without us
    [parts] = (run_folder(tmp_path, "causallm-several") / "checkpoints").glob("*/*/*/shards")
    assert sorted(path.name for path in parts.iterdir()) == [f"0000{part}-of-00002.safetensors" for part in (1, 2)]
    found = {f"model.{name}": torch.empty_like(weight) for name, weight in model.named_parameters()}
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(parts)), no_dist=True)
    assert all(torch.equal(found[f"model.{name}"], weight) for name, weight in model.named_parameters())


def test_any_number_of_ranks_resumes_from_divided_weights(tmp_path: Path) -> None:
    # given a run whose best weights are kept, stopped in its second epoch, and what it would have given
    spec = sure(tmp_path, training={**FSDP, "warmupPercent": 20}, output={"weights": "Best"})
    complete_ranks(tmp_path, spec, 2, name="calm")
    expected = pytest.approx(list(losses(tmp_path, "calm")), abs=1e-5)
    step = stopped(tmp_path, spec, 2, 1, at=15)
    kept = tmp_path / "kept"
    shutil.copytree(run_folder(tmp_path), kept)
    # when as many ranks resume, they end as if nothing had happened
    complete_ranks(tmp_path, spec, 2, 2)
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
    for size in (1, 4):
        shutil.rmtree(run_folder(tmp_path))
        shutil.copytree(kept, run_folder(tmp_path))
        # when another number of ranks resumes, and is stopped too
        again = stopped(tmp_path, spec, size, 0, at=step + 2, number=2)
        [newest] = (run_folder(tmp_path) / "checkpoints").glob(f"attempt-0002*/step-{again:08d}/*/")
        assert (newest / "shards").is_dir() == (size > 1)
        # and the first number resumes from that
        complete_ranks(tmp_path, spec, 2, 3)
        # then no step differs, and neither do the weights of the best
        assert list(losses(tmp_path)) == expected
        assert report(tmp_path)["training"]["resumedFromStep"] == again
        ours, calm = (load_file(run_folder(tmp_path, name) / "model/model.safetensors") for name in ("toy", "calm"))
        assert all(torch.allclose(weight, calm[key], atol=1e-4) for key, weight in ours.items())


def adapter(home: Path, **training: Any) -> dict[str, Any]:
    """A LoRA adapter on a small model, without dropout."""
    training = {"perDeviceBatchSize": 4, "learningRate": "1e-2", "adapter": {"rank": 4, "dropout": "0"}, **training}
    spec = toy_spec(home, training={**training, "maxSteps": 30})
    del spec["training"]["epochs"]
    spec["model"] = {"name": save_base(home / "base", "llama")}
    return spec


def test_an_adapter_is_held_by_every_rank_and_resumed_by_any_number(tmp_path: Path) -> None:
    # given a run of one process
    complete(tmp_path, adapter(tmp_path, batchSize=8), name="one")
    expected = pytest.approx(list(losses(tmp_path, "one")), abs=1e-5)
    for parallelism, first, then in (("FSDP", 2, 1), ("DDP", 1, 2)):
        # when some ranks begin, with the frozen weights divided or not, and another number resumes
        spec, name = adapter(tmp_path, batchSize=8, parallelism=parallelism), f"{parallelism}-{first}".lower()
        step = stopped(tmp_path, spec, first, first - 1, at=17, name=name)
        if then == 1:
            complete(tmp_path, spec, 2, name=name)
        else:
            complete_ranks(tmp_path, spec, then, 2, name=name)
        # then no step differs, and a checkpoint is the same as of one process
        assert list(losses(tmp_path, name)) == expected
        assert report(tmp_path, name)["training"]["resumedFromStep"] == step
        for checkpoint in (run_folder(tmp_path, name) / "checkpoints").glob("*/*/*/"):
            files = {path.name for path in checkpoint.iterdir()}
            assert {"adapter_model.safetensors", "optimizer.pt"} <= files
            assert "shards" not in files
        assert (run_folder(tmp_path, name) / "model/model.safetensors").exists()


def by_rule(division: str) -> Any:
    """A patch: the rule divides the weights in this way, though their devices' memory is not known."""

    def patch(teller: Any) -> None:
        from lmft_job.sharding.choose import Division
        from lmft_job.stages.ranks import place, turns

        place.choose = lambda *args: Division(division)  # type: ignore[assignment]
        place.may_divide = turns.may_divide = lambda *args: True

    return patch


def test_auto_may_divide_within_nodes_what_an_attempt_before_held_whole(tmp_path: Path) -> None:
    # given a run whose ranks held all weights, and were stopped
    spec = sure(tmp_path, training={"batchSize": 8}, output={"weights": "Best"})
    complete(tmp_path, spec, name="calm")
    stopped(tmp_path, spec, 2, 0, at=15)
    # when two nodes of two ranks resume, each with a copy that its ranks divide
    complete_ranks(tmp_path, spec, 4, 2, pods=2, patch=by_rule("FSDP within each node"))
    # then no step differs, and one copy is stored
    assert list(losses(tmp_path)) == pytest.approx(list(losses(tmp_path, "calm")), abs=1e-5)
    [note] = (run_folder(tmp_path) / "checkpoints").glob("*/*/MANIFEST.json")
    names = json.loads(note.read_text())["files"]
    assert {f"shards/0000{part}-of-00002.safetensors" for part in (1, 2)} <= set(names)
    assert "shards/00001-of-00004.safetensors" not in names
