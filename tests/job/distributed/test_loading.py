"""Of a pod's ranks one loads the model; the others make it without memory, and all hold their share of the same."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.forked import run_folder, toy_spec
from support.ranks import complete_ranks
from support.tiny_bases import save_base

from lmft_api.tasks import Task

pytestmark = pytest.mark.timeout(600)


def named(home: Path, kind: str, task: Task = Task.CAUSAL_LM, **settings: Any) -> dict[str, Any]:
    return {"model": {"name": save_base(home / "base", kind, task, **settings)}}


def untied_in_the_files(home: Path) -> dict[str, Any]:
    """The configuration ties the embeddings, and the files hold two that differ, by names with a wrapper's prefix."""
    found = named(home, "llama", tie_word_embeddings=False, dtype=torch.bfloat16)
    config, file = home / "base/config.json", home / "base/model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    weights = {f"_orig_mod.{name}": value for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return found


def more_tokens(home: Path) -> dict[str, Any]:
    """The tokenizer has more tokens than the model has embeddings."""
    found = named(home, "gpt2")
    shutil.copytree(home / "base", home / "larger")
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "larger")
    tokenizer.add_tokens([f"<more-{number}>" for number in range(7)])
    tokenizer.save_pretrained(home / "larger")
    found["model"]["tokenizer"] = {"name": (home / "larger").as_uri()}
    return found


def with_a_fresh_head(home: Path) -> dict[str, Any]:
    return {"task": "SequenceClassification", **named(home, "bert", Task.MASKED_LM)}


def adapted(home: Path) -> dict[str, Any]:
    return named(home, "llama") | {"training": {"adapter": {"rank": 4, "type": "DoRA"}}}


KINDS: dict[str, Any] = {
    "untied in the files": untied_in_the_files,
    "more tokens than embeddings": more_tokens,
    "a classifier's fresh head": with_a_fresh_head,
    "an adapter": adapted,
}


def watching(folder: Path) -> Any:
    """A patch: each rank says how it loads, and rank 0 writes the weights that training begins with."""

    def patch(teller: Any) -> None:
        from lmft_job.models import build
        from lmft_job.sharding.divide import is_divided
        from lmft_job.stages.ranks import load, place

        rank, factory, original = os.environ["RANK"], build.load_weights, place.place
        hollow = load.hollow_model

        def loading(*args: Any, **options: Any) -> Any:
            (folder / f"loaded-{rank}").touch()
            return factory(*args, **options)

        def making(*args: Any, **options: Any) -> Any:
            (folder / f"hollow-{rank}").touch()
            return hollow(*args, **options)

        def placing(context: Any, model: Any, *args: Any) -> Any:
            before = {} if any(one.is_meta for one in model.parameters()) else _copied(model)
            placed = original(context, model, *args)
            assert is_divided(placed.model)
            assert not any(one.is_meta for one in (*placed.model.parameters(), *placed.model.buffers()))
            after = _copied(placed.model)
            if before:
                assert before.keys() == after.keys()
                assert all(torch.equal(before[name], after[name]) for name in before)
            torch.save(after, folder / f"weights-{rank}.pt")
            return placed

        build.load_weights, load.hollow_model, place.place = loading, making, placing

    return patch


def _copied(model: Any) -> dict[str, torch.Tensor]:
    found = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in found.items()}
    return {name: value.detach().clone() for name, value in whole.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_of_a_pod_loads_and_all_hold_the_same(kind: str, tmp_path: Path) -> None:
    # given a model of some kind
    made = KINDS[kind](tmp_path)
    training = {"maxSteps": 2, "batchSize": 4, "parallelism": "FSDP", **made.pop("training", {})}
    spec = toy_spec(tmp_path, made.pop("task", "CausalLM"), training=training)
    spec["model"] = made["model"]
    del spec["training"]["epochs"]
    # when two ranks of a pod train it
    complete_ranks(tmp_path, spec, 2, patch=watching(tmp_path))
    # then the second has never had the whole of it, and holds what the first loaded, bit for bit
    assert sorted(path.name for path in tmp_path.glob("hollow-*")) == ["hollow-1"]
    assert not (tmp_path / "loaded-1").exists()
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (run_folder(tmp_path) / "model/model.safetensors").exists()
