"""``spec.resumeFrom`` runs with adapters, and adapters that somebody else wrote."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.complete_folders import files_of
from support.forked import KILL, attempt, complete, run_folder, slow_uploads, toy_spec
from support.tiny_bases import save_base

from lmft_job.adapters.attach import as_loaded

LORA: dict[str, Any] = {"epochs": 1, "learningRate": "1e-2", "adapter": {"rank": 4}}


def lora_spec(home: Path, base: str, **sections: Any) -> dict[str, Any]:
    spec = toy_spec(home, **{"training": LORA, **sections})
    spec["model"] = {"name": base}
    return spec


def losses(home: Path, name: str) -> tuple[float, float]:
    """Held-out loss before and after."""
    results = json.loads((run_folder(home, name) / "report.json").read_text())["results"]
    return results["baselineEvalLoss"], results["evalLoss"]


def config_of(home: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((run_folder(home, name) / "adapter/adapter_config.json").read_text()))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The home of a finished run named ``first``, and the address of its base."""
    home = tmp_path_factory.mktemp("first")
    base = save_base(home / "base", "llama")
    complete(home, lora_spec(home, base), name="first")
    return home, base


def test_an_adapter_of_the_same_shape_is_continued(first: tuple[Path, str]) -> None:
    home, base = first
    model = (run_folder(home, "first") / "model").as_uri()
    child = complete(home, lora_spec(home, base), name="same", resume_model_uri=model)
    assert child.said("continuing the adapter of the run")
    assert losses(home, "same")[0] == pytest.approx(losses(home, "first")[1], abs=1e-6)
    assert config_of(home, "same")["base_model_name_or_path"] == as_loaded(base)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"adapter": {"rank": 8}}, "has another shape"),
        ({"adapter": {"rank": 4, "type": "DoRA"}}, "has another shape"),
        ({"adapter": {"rank": 4, "targetModules": ["q_proj"]}}, "has another shape"),
        ({}, ""),
    ],
)
def test_another_shape_starts_from_the_merge(first: tuple[Path, str], training: Any, said: str) -> None:
    home, base = first
    name = f"other-{abs(hash(str(training)))}"
    spec = lora_spec(home, base)
    spec["training"] = {"epochs": 1, "learningRate": "1e-3", **training}
    model = (run_folder(home, "first") / "model").as_uri()
    child = complete(home, spec, name=name, resume_model_uri=model)
    assert child.said(said)
    assert losses(home, name)[0] == pytest.approx(losses(home, "first")[1], abs=1e-5)
    if training:
        assert config_of(home, name)["base_model_name_or_path"] == as_loaded(model)


def test_an_adapter_of_another_base_is_not_put_on_this_one(first: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = first
    other = save_base(tmp_path / "other", "llama", seed=1)
    model = (run_folder(home, "first") / "model").as_uri()
    child = complete(home, lora_spec(home, other), name="elsewhere", resume_model_uri=model)
    assert child.said("and spec.model.name is")
    assert config_of(home, "elsewhere")["base_model_name_or_path"] == as_loaded(model)


def test_the_newest_checkpoint_of_a_run_that_failed_is_continued(first: tuple[Path, str]) -> None:
    home, base = first
    child = attempt(home, lora_spec(home, base), name="failed", patch=slow_uploads(0.002))
    child.until("checkpoint 10")
    child.signal(KILL)
    child.wait()
    newest = max((run_folder(home, "failed") / "checkpoints").glob("*/*/MANIFEST.json")).parent
    child = complete(home, lora_spec(home, base), name="after", resume_model_uri=newest.as_uri())
    assert losses(home, "after")[0] != losses(home, "first")[0]
    assert config_of(home, "after")["base_model_name_or_path"] == as_loaded(base)


def test_an_adapter_alone_is_not_taken_for_a_model(first: tuple[Path, str]) -> None:
    home, base = first
    spec = lora_spec(home, base)
    spec["training"] = {"epochs": 1}
    alone = (run_folder(home, "first") / "adapter").as_uri()
    child = attempt(home, spec, name="full", resume_model_uri=alone)
    assert child.wait() == 2
    assert "spec.resumeFrom: that run left an adapter without a merged model" in child.result["message"]
    assert "{type: LoRA, rank: 4, alpha: 32, targetModules: [" in child.result["message"]


def test_all_linear_does_not_continue_an_adapter_of_some_modules(first: tuple[Path, str]) -> None:
    # given a run whose adapter is of fewer modules than all
    home, base = first
    spec = lora_spec(home, base)
    spec["training"] = {"epochs": 1, "learningRate": "1e-2", "adapter": {"rank": 4, "targetModules": ["q_proj"]}}
    complete(home, spec, name="some")
    place = run_folder(home, "some")
    # then one of all starts from its merge
    child = complete(home, lora_spec(home, base), name="all", resume_model_uri=(place / "model").as_uri())
    assert child.said("targetModules: [q_proj]) has another shape than this run's")
    assert losses(home, "all")[0] == pytest.approx(losses(home, "some")[1], abs=1e-5)
    # and is refused where there is none
    child = attempt(home, lora_spec(home, base), name="alone", resume_model_uri=(place / "adapter").as_uri())
    assert child.wait() == 2
    assert "without a merged model to start from, and its adapter (type: LoRA" in child.result["message"]


def changed(**settings: Any) -> Callable[[Path], None]:
    """Change settings of an adapter's configuration."""

    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def reshaped(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value.repeat(2, 1) for name, value in load_file(path).items()}, path)


def poisoned(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: torch.full_like(value, float("nan")) for name, value in load_file(path).items()}, path)


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))


def linked(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to(folder.parent / "secret")
    (folder.parent / "secret").write_text("secret")


def overwritten(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


HOSTILE: list[tuple[str, Callable[[Path], None], str]] = [
    ("a pickle", pickled, "has no adapter_model.safetensors in its folder (adapter_model.bin is not read"),
    ("a link elsewhere", linked, "has no adapter_model.safetensors in its folder"),
    ("other shapes", reshaped, "does not fit this model"),
    ("not a number", poisoned, "holds NaN"),
    ("a huge rank", changed(r=10**9), "its rank is 1000000000, not 1 to 512"),
    ("no rank", changed(r="4"), "its rank is 4, not 1 to 512"),
    ("a huge alpha", changed(lora_alpha=1e300), "its alpha is 1e+300"),
    ("another method", changed(peft_type="../../etc"), "not LORA"),
    ("targets that are no list", changed(target_modules=".*"), "no list of names"),
    ("targets of other kinds", changed(target_modules=[{"a": 1}]), "no list of names"),
    ("no JSON", overwritten("adapter_config.json", b"{" * 100_000), "cannot be used"),
    ("no object", overwritten("adapter_config.json", b"[]"), "cannot be used"),
    ("a configuration without end", overwritten("adapter_config.json", b" " * (2 << 20)), "larger than"),
    ("weights that are none", overwritten("adapter_model.safetensors", b"\xff" * 64), "is damaged"),
    ("another base", changed(base_model_name_or_path="/etc"), "belongs to '/etc'"),
    ("ranks by module", changed(rank_pattern={"q_proj": 512}), "has another shape"),
]


@pytest.mark.parametrize(("spoil", "said"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_adapter_is_refused_in_words(
    spoil: Callable[[Path], None], said: str, first: tuple[Path, str], tmp_path: Path
) -> None:
    home, base = first
    folder = tmp_path / "left" / "adapter"
    shutil.copytree(run_folder(home, "first") / "adapter", folder)
    spoil(folder)
    child = attempt(tmp_path, lora_spec(tmp_path, base), resume_model_uri=folder.as_uri())
    assert child.wait() == 2, child.log.read_text()[-2000:]
    assert "spec.resumeFrom" in child.result["message"]
    assert said in child.result["message"]


def test_a_checkpoint_with_weights_of_another_shape_is_skipped(first: tuple[Path, str], tmp_path: Path) -> None:
    _, base = first
    spec = lora_spec(tmp_path, base)
    child = attempt(tmp_path, spec, patch=slow_uploads(0.002))
    child.until("checkpoint 10")
    child.signal(KILL)
    child.wait()
    newest = max((run_folder(tmp_path) / "checkpoints").glob("*/*/MANIFEST.json")).parent
    path = files_of(newest) / "adapter_model.safetensors"
    reshaped(path.parent)
    from hashlib import sha256

    manifest = newest / "MANIFEST.json"
    body = json.loads(manifest.read_text())
    entry = body["files"]["adapter_model.safetensors"]
    entry["size"], entry["sha256"] = path.stat().st_size, sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(body))
    last = complete(tmp_path, spec, 2)
    assert last.said("skipped: the weights in resume/ are not this model's")
    assert last.said("resumed from step")
