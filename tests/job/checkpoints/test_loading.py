"""A checkpoint whose manifest holds and that does not load: passed over, with what is wrong; nothing in it is run."""

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
from support.forked import KILL, attempt, complete, outcome, run_folder, toy_spec
from transformers import AutoConfig, AutoModelForCausalLM

from lmft_job.checkpoints.loading import require_loadable
from lmft_job.storage import DamagedFolderError, open_store, publish_folder


class Marker:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home of a run that was killed after two checkpoints, and the files of the newest."""
    home = tmp_path_factory.mktemp("killed")
    child = attempt(home, toy_spec(home, output={"weights": "Best"}, evaluation={"everySteps": 5}))
    child.until("checkpoint 10")
    child.signal(KILL)
    assert child.wait() == -KILL
    newest = max((run_folder(home) / "checkpoints").glob("*/*/MANIFEST.json")).parent
    return home, files_of(newest)


@pytest.fixture
def files(killed: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(killed[1], tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def model(killed: tuple[Path, Path]) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(killed[1]))


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros(3) for name in weights}, folder / "model.safetensors", {"format": "pt"})


def fewer_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(max(weights))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def an_index_that_leads_elsewhere(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def rewritten(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def saved(name: str, state: Any) -> Callable[[Path], None]:
    return lambda folder: torch.save(state, folder / name)


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights of another model": (other_weights, "the weights in checkpoint/"),
    "a tensor too few": (fewer_weights, "the weights in checkpoint/ are not this model's"),
    "pickled weights": (pickled_weights, "the weights in checkpoint/ do not load"),
    "an index that leads elsewhere": (an_index_that_leads_elsewhere, "the weights in checkpoint/ do not load"),
    "a header of 2^62 bytes": (rewritten("model.safetensors", b"\0" * 7 + b"\x40" + b"{}"), "do not load"),
    "no safetensors": (rewritten("model.safetensors", b"not weights"), "do not load"),
    "best weights that are none": (rewritten("best/model.safetensors", b"x"), "the weights in best/ do not load"),
    "no optimizer": (rewritten("optimizer.pt", b"x"), "optimizer.pt does not load"),
    "an optimizer that is a list": (saved("optimizer.pt", [1]), "optimizer.pt does not load"),
    "an optimizer without groups": (saved("optimizer.pt", {"state": 1}), "optimizer.pt does not load"),
    "another model's optimizer": (saved("optimizer.pt", {"state": {}, "param_groups": []}), "is not of this model"),
    "a scheduler cut short": (rewritten("scheduler.pt", b"PK\x03\x04"), "scheduler.pt does not load"),
    "random numbers of no kind": (rewritten("rng_state.pth", b""), "rng_state.pth does not load"),
    "no position": (rewritten("trainer_state.json", b"{}"), "its history does not load"),
    "a position that is no number": (rewritten("trainer_state.json", b'{"global_step": [], "epoch": 1}'), "history"),
    "a position at infinity": (rewritten("trainer_state.json", b'{"global_step": 1e999, "epoch": 1}'), "history"),
    "a position beyond the losses": (rewritten("trainer_state.json", b'{"global_step": 999, "epoch": 1}'), "10 losses"),
    "a history nested deeply": (rewritten("lmft_state.json", b"[" * 100_000), "its history does not load"),
    "a history of words": (
        rewritten("lmft_state.json", b'{"tokens": "many", "seconds": 1, "evaluations": [], "resumes": []}'),
        "its history does not load",
    ),
    "losses cut short": (rewritten("lmft_losses.f64", b"123"), "its history does not load"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_load_is_found_before_training(files: Path, model: Any, mistake: str) -> None:
    make, said = MISTAKES[mistake]
    make(files)

    with pytest.raises(DamagedFolderError) as caught:
        require_loadable(files, model, own_trainer=False)
    assert said in str(caught.value)


def test_a_checkpoint_as_it_was_written_loads(files: Path, model: Any) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    require_loadable(files, model, own_trainer=False)

    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items()), "it is unchanged"


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "pytorch_model.bin",
        "training_args.bin",
        "best/pytorch_model.bin",
    ],
)
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_nothing_in_a_checkpoint_is_unpickled_into_an_object(
    files: Path, model: Any, tmp_path: Path, name: str, form: str
) -> None:
    trap = Marker(tmp_path / "sprung")
    (torch.save(trap, files / name) if form == "torch" else (files / name).write_bytes(pickle.dumps(trap)))

    if name.endswith(".bin"):
        require_loadable(files, model, own_trainer=False)
        assert not (files / name).exists()
    else:
        with pytest.raises(DamagedFolderError, match=name):
            require_loadable(files, model, own_trainer=False)
    assert not (tmp_path / "sprung").exists()


def test_one_that_does_not_load_is_passed_over_for_the_one_before_and_the_run_ends_bit_equal(
    killed: tuple[Path, Path], tmp_path: Path
) -> None:
    # given a newest checkpoint whose manifest holds, but whose optimizer is not one
    home = killed[0]
    spec = toy_spec(home, output={"weights": "Best"}, evaluation={"everySteps": 5})
    complete(home, spec, name="calm")
    step = int(killed[1].parent.name.removeprefix("step-"))
    bad = shutil.copytree(killed[1], tmp_path / "bad")
    (bad / "optimizer.pt").write_bytes(b"x")
    shutil.rmtree(killed[1].parent)
    store = open_store(run_folder(home).as_uri())
    prefix = f"checkpoints/attempt-0001/step-{step:08d}"
    assert publish_folder(store, prefix, bad, {"attempt": 1, "step": step})

    last = complete(home, spec, 2)

    assert last.said(f"checkpoint of step {step} (attempt 1) skipped: optimizer.pt does not load")
    assert last.said(f"trying step {step - 5} (attempt 1) instead")
    assert last.result["counts"]["resumedFromStep"] == step - 5
    assert outcome(home) == outcome(home, "calm")
