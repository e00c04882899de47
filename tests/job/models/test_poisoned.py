"""A poisoned model by each way into a run: the same end whichever way it comes, and nothing of it is run or told.

The members of each kind are tried elsewhere (tests/attacks/members/model_files.py, test_files.py); here each way has to
lead through the same guards. A poisoned checkpoint of the run itself is in tests/job/checkpoints/test_loading.py.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.members.model_files import PEM
from safetensors.torch import load_file, save_file
from support.forked import attempt, complete, run_folder, toy_spec
from support.hub_data_double import hub
from support.s3server import BUCKET, S3Server

from lmft_api.wire.run_file import Stage
from lmft_job.storage import open_store, publish_folder

CANARY = "canary"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that a run has published."""
    home = tmp_path_factory.mktemp("honest")
    complete(home, toy_spec(home))
    return run_folder(home) / "model"


# Poisons: what is changed in an honest model's folder, given the home of the run, where secrets and marks may lie


class Marker:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def change(file: Path, **settings: Any) -> None:
    given = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(given | settings))


def code_in(folder: Path, home: Path) -> str:
    """Code of its own, which leaves a mark when it is imported."""
    (folder / "evil.py").write_text(f"open({str(home / 'ran')!r}, 'w')\nclass Evil: pass\n")
    return "evil.Evil"


def a_key_as_vocabulary(folder: Path, home: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", vocab=str(home / "key.pem"))


def a_key_as_vocabulary_of_the_core(folder: Path, home: Path) -> None:
    core = json.loads((folder / "tokenizer.json").read_text())
    core["model"]["vocab"] = str(home / "key.pem")
    (folder / "tokenizer.json").write_text(json.dumps(core))


def pickled_weights(folder: Path, home: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(home / "ran")))


def an_index_that_leads_elsewhere(folder: Path, home: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def an_index_of_numbers(folder: Path, home: Path) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": 5, "b": {"c": []}}}')


def weights_that_are_no_numbers(folder: Path, home: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)] = torch.full_like(weights[min(weights)], float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def weights_of_another_shape(folder: Path, home: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros(3) for name in weights}, folder / "model.safetensors", {"format": "pt"})


def a_model_of_its_own_code(folder: Path, home: Path) -> None:
    change(folder / "config.json", model_type="evil", auto_map={"AutoConfig": code_in(folder, home)})


REFUSED: dict[Callable[[Path, Path], None], str] = {
    a_key_as_vocabulary: "as vocab",
    a_key_as_vocabulary_of_the_core: "tokenizer",
    pickled_weights: "no weights as safetensors",
    an_index_that_leads_elsewhere: "missing: ../../elsewhere.safetensors",
    an_index_of_numbers: "missing: 5",
    weights_that_are_no_numbers: "hold NaN or infinity",
    weights_of_another_shape: "shape",
    a_model_of_its_own_code: "runs code from its repository",
}


def leftovers(folder: Path, home: Path) -> None:
    """What nothing here needs: it is left out, and the rest trains."""
    evil = code_in(folder, home)
    key = str(home / "key.pem")
    change(
        folder / "tokenizer_config.json", name_or_path=key, init_inputs=[key], auto_map={"AutoTokenizer": [evil, evil]}
    )
    change(folder / "config.json", _name_or_path=key, auto_map={"AutoModelForCausalLM": evil}, gguf_file=key)
    change(folder / "adapter_config.json", base_model_name_or_path=key, peft_type="LORA")
    (folder / "training_args.bin").write_bytes(pickle.dumps(Marker(home / "ran")))


# Ways


@dataclass
class Way:
    """How an attempt is given the model: parts of its spec and of its run file, and what is patched in its process."""

    spec: dict[str, Any] = field(default_factory=dict)
    run_file: dict[str, Any] = field(default_factory=dict)
    patch: Any = None
    names: str = "spec.model.name"


@contextmanager
def by_file(model: Path, home: Path, s3: S3Server) -> Iterator[Way]:
    yield Way({"model": {"name": model.as_uri()}})


@contextmanager
def by_s3(model: Path, home: Path, s3: S3Server) -> Iterator[Way]:
    for path in model.iterdir():
        s3.client().upload_file(str(path), BUCKET, f"{home.name}/model/{path.name}")
    s3.secret(home / "secrets" / "model", s3.reader)
    yield Way({"model": {"name": f"s3://{BUCKET}/{home.name}/model"}})


@contextmanager
def by_hub(model: Path, home: Path, s3: S3Server) -> Iterator[Way]:
    with hub(model) as (address, _, _):

        def ask_the_stand_in(teller: Any) -> None:
            from huggingface_hub import constants

            constants.HF_HUB_OFFLINE = False
            constants.HF_HUB_DISABLE_XET = True
            constants.ENDPOINT = address
            constants.HUGGINGFACE_CO_URL_TEMPLATE = address + "/{repo_id}/resolve/{revision}/{filename}"
            constants.HF_HUB_CACHE = str(home / "hub")

        yield Way({"model": {"name": "team/model"}}, patch=ask_the_stand_in)


@contextmanager
def staged(model: Path, home: Path, s3: S3Server) -> Iterator[Way]:
    """The prepare stage's copy, exchanged by somebody who may write to the run's storage."""
    spec = {"model": {"name": home.with_name("honest-copy").as_uri()}}
    shutil.copytree(home / "before", home.with_name("honest-copy"), dirs_exist_ok=True)
    complete(home, toy_spec(home) | spec, 1, stage=Stage.PREPARE)
    store = open_store(run_folder(home).as_uri())
    publish_folder(store, "staged/model", model, {"revision": ""})
    yield Way(spec, {"stage": Stage.TRAIN})


@contextmanager
def resumed(model: Path, home: Path, s3: S3Server) -> Iterator[Way]:
    """The model of the run that ``spec.resumeFrom`` names, as the operator passes it on."""
    spec = {"model": {"name": (home / "before").as_uri()}, "resumeFrom": {"name": "earlier"}}
    yield Way(spec, {"resume_model_uri": model.as_uri()}, names="spec.")


WAYS = [by_file, by_s3, by_hub, staged, resumed]


def poisoned(honest: Path, home: Path, poison: Callable[[Path, Path], None]) -> Path:
    """The honest model's folder with the poison in it; the untouched one lies beside it."""
    (home / "key.pem").write_text(PEM)
    shutil.copytree(honest, home / "before")
    folder = shutil.copytree(honest, home / "poisoned")
    poison(folder, home)
    return folder


def left_by(home: Path, child: Any) -> bytes:
    """All that a run leaves and says."""
    files = [path for name in ("out", "cache") for path in (home / name).rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in [*files, child.log]) + "\n".join(child.lines).encode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", REFUSED)
def test_a_poisoned_model_is_refused_by_whichever_way_it_comes(
    poison: Callable[[Path, Path], None], way: Any, honest: Path, tmp_path: Path, s3: S3Server
) -> None:
    model = poisoned(honest, tmp_path, poison)
    with way(model, tmp_path, s3) as given:
        child = attempt(tmp_path, toy_spec(tmp_path) | given.spec, 2, patch=given.patch, **given.run_file)
        code = child.wait()

    assert (code, child.result["reason"]) == (2, "InvalidSpec"), child.log.read_text()[-2000:]
    assert given.names in child.result["message"]
    assert REFUSED[poison] in child.result["message"]
    assert not (tmp_path / "ran").exists()
    assert CANARY.encode() not in left_by(tmp_path, child)


@pytest.mark.parametrize("way", WAYS)
def test_what_no_model_needs_is_left_out_by_whichever_way_it_comes_and_the_rest_trains(
    way: Any, honest: Path, tmp_path: Path, s3: S3Server
) -> None:
    model = poisoned(honest, tmp_path, leftovers)
    with way(model, tmp_path, s3) as given:
        child = complete(tmp_path, toy_spec(tmp_path) | given.spec, 2, patch=given.patch, **given.run_file)

    before, after = (
        json.loads((folder / "report.json").read_text()) for folder in (honest.parent, run_folder(tmp_path))
    )
    assert after["results"]["baselinePerplexity"] == pytest.approx(before["results"]["perplexity"], rel=1e-6)
    assert not (tmp_path / "ran").exists()
    assert CANARY.encode() not in left_by(tmp_path, child)
