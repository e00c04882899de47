"""Whole runs with adapters on tiny models: what they publish, what they learn, and how they resume."""

import json
from array import array
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.complete_folders import files_of
from support.forked import KILL, TERM, attempt, complete, run_folder, slow_uploads, toy_spec
from support.tiny_bases import save_base

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job.evaluation.samples import answer_prompts
from lmft_job.models.device import Arithmetic

LORA: dict[str, Any] = {"epochs": 2, "learningRate": "1e-2", "adapter": {"rank": 4}}


def adapter_spec(home: Path, base: str, task: str = "CausalLM", **sections: Any) -> dict[str, Any]:
    """A toy run with an adapter."""
    spec = toy_spec(home, task, **{"training": LORA, **sections})
    spec["model"] = {"name": base}
    return spec


def report_of(home: Path, name: str = "toy") -> dict[str, Any]:
    return dict(json.loads((run_folder(home, name) / "report.json").read_text()))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run that is done, on a Llama in BF16."""
    home = tmp_path_factory.mktemp("lora")
    base = save_base(home / "base", "llama", dtype=torch.bfloat16)
    return home, complete(home, adapter_spec(home, base))


def test_adapter_and_merged_model_are_published(done: tuple[Path, Any]) -> None:
    home, child = done
    folder = run_folder(home)
    results = child.result["results"]
    assert results["modelURI"] == (folder / "model").as_uri()
    assert results["adapterURI"] == (folder / "adapter").as_uri()
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(home / "base")
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert float(results["evalLoss"]) < float(results["baselineEvalLoss"])


def test_the_merged_model_is_the_adapter_on_its_base_in_the_bases_type(done: tuple[Path, Any]) -> None:
    home, _ = done
    folder = run_folder(home)
    ids = torch.arange(3, 30)[None]
    # which names its base in a way that peft finds it
    worn = peft.AutoPeftModelForCausalLM.from_pretrained(str(folder / "adapter"), dtype=torch.float32).eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto").eval()
    assert merged.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(worn(ids).logits, merged.float()(ids).logits, atol=0.05, rtol=0.02)
        plain = worn.merge_and_unload().to(torch.bfloat16).state_dict()
    assert all(torch.equal(plain[name], value) for name, value in merged.to(torch.bfloat16).state_dict().items())


def test_the_published_weights_are_evaluated_again(done: tuple[Path, Any]) -> None:
    report = report_of(done[0])
    told = report["adapter"]
    assert (told["baseDtype"], report["savedDtype"], report["evaluationDtype"]) == ("bfloat16", "bfloat16", "float32")
    assert 0 < abs(told["mergedLoss"] - told["adapterLoss"]) < 0.005


def test_the_published_model_gives_the_reported_sample(done: tuple[Path, Any]) -> None:
    folder = run_folder(done[0]) / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    report = report_of(done[0])["results"]
    sample = SampleSettings(prompts=("The river",), max_new_tokens=6, top_k=50, top_p=0.95)
    cpu = Arithmetic(torch.device("cpu"))
    given = answer_prompts(model, tokenizer, Task.CAUSAL_LM, sample, seed=42, limit=66, arithmetic=cpu)
    assert given == [report["samples"][0]["after"]]


def test_checkpoints_hold_the_adapter_and_its_optimizer_alone(done: tuple[Path, Any]) -> None:
    [manifest] = run_folder(done[0]).glob("checkpoints/*/*/MANIFEST.json")
    files = {path.name: path.stat().st_size for path in files_of(manifest.parent).rglob("*.*")}
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.pt"} <= files.keys()
    assert "model.safetensors" not in files
    assert "training_args.bin" not in files


def test_the_log_has_no_warning_of_a_library(done: tuple[Path, Any]) -> None:
    assert "Warning" not in done[1].log.read_text()
    assert "kernels" not in done[1].log.read_text()


KINDS = [
    ("gpt2", "CausalLM", {"type": "LoRA", "rank": 4}),
    ("llama", "CausalLM", {"type": "DoRA", "rank": 4}),
    ("llama", "CausalLM", {"rank": 8, "alpha": 8, "rankStabilized": True, "targetModules": ["q_proj", "lm_head"]}),
    ("bert", "MaskedLM", {"rank": 4, "targetModules": ["query", "attention.output.dense"]}),
    ("bert", "SequenceClassification", {"rank": 4}),
    ("gpt2", "SequenceClassification", {"rank": 4, "type": "DoRA"}),
]


@pytest.mark.parametrize(("kind", "task", "adapter"), KINDS)
def test_every_kind_of_adapter_learns_and_merges(kind: str, task: str, adapter: dict[str, Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", kind, Task.MASKED_LM if kind == "bert" else Task.CAUSAL_LM)
    child = complete(tmp_path, adapter_spec(tmp_path, base, task, training={**LORA, "adapter": adapter}))
    results = child.result["results"]
    assert float(results["evalLoss"]) < float(results["baselineEvalLoss"])
    told = report_of(tmp_path)["adapter"]
    assert told["merged"]
    assert abs(told["mergedLoss"] - told["adapterLoss"]) < 1e-5
    assert not list(run_folder(tmp_path).glob("model/adapter*"))


def plain_peft_losses(base: str, adapter: dict[str, Any], target: Path) -> Any:
    """A patch: what peft and Trainer alone give for the rows of the run is written into a file."""

    def patch(teller: Any) -> None:
        import lmft_job.recipe as recipe

        train = recipe.train

        def both(job: Any, resumed: Any) -> Any:
            model = transformers.AutoModelForCausalLM.from_pretrained(base.removeprefix("file://"), dtype=torch.float32)
            transformers.set_seed(42)
            model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **adapter))
            order = list(recipe_order(len(job.train_rows)))
            losses = array("d")

            class Plain(transformers.Trainer):
                def _get_train_sampler(self, *args: Any) -> Any:
                    return order_of(order)

                def training_step(self, *args: Any, **options: Any) -> Any:
                    loss = super().training_step(*args, **options)
                    losses.append(float(loss))
                    return loss

            arguments = transformers.TrainingArguments(
                output_dir=str(target.parent / "plain"), num_train_epochs=1, per_device_train_batch_size=4,
                learning_rate=1e-2, weight_decay=0.01, seed=42, use_cpu=True, remove_unused_columns=False,
                report_to="none", save_strategy="no", disable_tqdm=True,
            )  # fmt: skip
            Plain(model=model, args=arguments, train_dataset=job.train_rows, data_collator=job.collate).train()
            target.write_bytes(losses.tobytes())
            return train(job, resumed)

        recipe.train = both

    return patch


def recipe_order(rows: int) -> Any:
    from lmft_job.data.rows import EpochSampler

    return iter(EpochSampler(rows, 42))


def order_of(order: list[int]) -> Any:
    return order


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("llama", {"rank": 4}, {"r": 4, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}),
        (
            "gpt2",
            {"rank": 8, "type": "DoRA", "dropout": "0", "alpha": 16, "rankStabilized": True, "targetModules": ["c_fc"]},
            {"r": 8, "use_dora": True, "lora_alpha": 16, "use_rslora": True, "target_modules": ["c_fc"]},
        ),
    ],
)  # fmt: skip
def test_losses_are_those_of_peft_and_trainer_alone(kind: str, ours: Any, theirs: Any, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", kind)
    spec = adapter_spec(tmp_path, base, training={**LORA, "epochs": 1, "adapter": ours})
    complete(tmp_path, spec, patch=plain_peft_losses(base, theirs, tmp_path / "theirs"))
    [file] = run_folder(tmp_path).glob("checkpoints/*/*/*/lmft_losses.f64")
    mine, plain = array("d"), array("d")
    mine.frombytes(file.read_bytes())
    plain.frombytes((tmp_path / "theirs").read_bytes())
    assert len(mine) == len(plain) > 10
    assert max(abs(one - other) for one, other in zip(mine, plain, strict=True)) < 1e-6


def outcome(home: Path, name: str = "toy") -> dict[str, Any]:
    """What must be equal, to the bit, whatever happened on the way."""
    folder = run_folder(home, name)
    report = report_of(home, name)
    [losses] = folder.glob("checkpoints/*/*/*/lmft_losses.f64")
    return {
        "adapter": (folder / "adapter/adapter_model.safetensors").read_bytes(),
        "model": (folder / "model/model.safetensors").read_bytes(),
        "losses": losses.read_bytes(),
        "results": {key: value for key, value in report["results"].items() if not key.endswith("URI")},
        "evaluations": report["evaluations"],
        "told": report["adapter"],
    }


@pytest.mark.parametrize(
    ("kind", "task", "training"),
    [
        ("llama", "CausalLM", {"gradientCheckpointing": True}),
        ("bert", "SequenceClassification", {"earlyStoppingPatience": 5}),
    ],
)
def test_a_run_that_is_stopped_and_killed_ends_bit_equal(
    kind: str, task: str, training: dict[str, Any], tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base", kind, Task.CAUSAL_LM if task == "CausalLM" else Task.MASKED_LM)
    spec = adapter_spec(tmp_path, base, task, training={**LORA, **training}, output={"weights": "Best"})
    complete(tmp_path, spec, name="calm")
    # when it is asked to stop, and then killed
    first = attempt(tmp_path, spec, patch=slow_uploads(0.003))
    first.until("step 7")
    first.signal(TERM)
    assert first.wait() == 75
    second = attempt(tmp_path, spec, 2, patch=slow_uploads(0.003))
    second.until("checkpoint 15")
    second.signal(KILL)
    assert second.wait() == -KILL
    # then it ends as if nothing had happened
    last = complete(tmp_path, spec, 3)
    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
    best = load_file(run_folder(tmp_path) / "adapter/adapter_model.safetensors")
    assert all(value.dtype == torch.float32 for value in best.values())


WIDE = {"llama": {"hidden_size": 64, "intermediate_size": 80}, "gpt2": {"n_embd": 64}}
"""As wide as a block of NF4, except for one layer of Llama."""


@pytest.mark.parametrize(("kind", "merge"), [("llama", True), ("gpt2", False)])
def test_on_a_base_in_4_bits_the_figures_of_record_are_those_of_what_is_published(
    kind: str, merge: bool, tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base", kind, **WIDE[kind])
    spec = adapter_spec(tmp_path, base, training={**LORA, "quantization": "NF4"}, output={"merge": merge})
    # when it is stopped and resumed
    first = attempt(tmp_path, spec, patch=slow_uploads(0.003))
    first.until("step 7")
    first.signal(TERM)
    assert first.wait() == 75
    last = complete(tmp_path, spec, 2)
    assert last.said("2 of 14 linear layers are not in 4 bits") == (kind == "llama")
    if merge:
        complete(tmp_path, spec, name="calm")
        assert outcome(tmp_path) == outcome(tmp_path, "calm")
    # then three losses are told, and that of the published weights is the result
    report = report_of(tmp_path)
    told = report["adapter"]
    assert told["quantized"]
    assert told["merged"] == merge
    losses = [told["adapterLoss"], told["baseLoss"], *([told["mergedLoss"]] if merge else [])]
    assert report["results"]["evalLoss"] == losses[-1]
    assert len({round(loss, 3) for loss in losses[:2]}) == 2, "NF4 changes a tiny model"
    assert abs(losses[-1] - told["baseLoss"]) < 1e-5
    assert (run_folder(tmp_path) / "model").exists() == merge
    assert report["results"]["modelURI"].endswith("/model" if merge else "/adapter")


def test_a_base_that_has_changed_is_refused_on_resume(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    spec = adapter_spec(tmp_path, base)
    first = attempt(tmp_path, spec, patch=slow_uploads(0.003))
    first.until("checkpoint 5")
    first.signal(KILL)
    first.wait()
    # when its base is another one with the same shapes
    save_base(tmp_path / "base", "llama", seed=1)
    second = attempt(tmp_path, spec, 2)
    # then it is not resumed with that
    assert second.wait() == 2
    assert "spec.model.name: the run began with files of sha256:" in second.result["message"]
    assert "restore them" in second.result["message"]


def test_what_the_model_does_not_have_is_refused_before_data_is_prepared(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    for names, told in (
        (["qproj"], "no module qproj; did you mean q_proj?"),
        (["embed_tokens"], "embed_tokens is Embedding, not a linear module"),
        (["input_layernorm", "up_proj"], "input_layernorm is LlamaRMSNorm, not a linear module"),
    ):
        spec = adapter_spec(tmp_path, base, training={**LORA, "adapter": {"targetModules": names}})
        child = attempt(tmp_path, spec)
        assert child.wait() == 2
        message = child.result["message"]
        assert "spec.training.adapter.targetModules[0]: " in message
        assert told in message
        assert (
            "Its linear modules are down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in message
        )
    assert not (tmp_path / "out/team/datasets").exists()


def test_nf4_is_tried_at_the_start(tmp_path: Path) -> None:
    def broken(teller: Any) -> None:
        import bitsandbytes.functional as functional

        def fail(*args: Any, **options: Any) -> Any:
            raise RuntimeError("no kernel")

        functional.quantize_4bit = fail

    spec = adapter_spec(tmp_path, save_base(tmp_path / "base", "llama"), training={**LORA, "quantization": "NF4"})
    child = attempt(tmp_path, spec, patch=broken)
    assert child.wait() == 2
    assert (
        "spec.training.quantization: bitsandbytes cannot compute with NF4 on this cpu (no kernel)"
        in child.result["message"]
    )
    assert not (tmp_path / "out/team/datasets").exists()


def test_merged_weights_that_have_drifted_are_withheld(tmp_path: Path) -> None:
    def spoil(teller: Any) -> None:
        import lmft_job.stages.adapter.settle as settle

        merged = settle.merged

        def spoilt(base: Any, adapter: Any, dtype: Any) -> Any:
            model = merged(base, adapter, dtype)
            model.lm_head.weight.data *= 1.2
            return model

        settle.merged = spoilt

    spec = adapter_spec(tmp_path, save_base(tmp_path / "base", "llama"))
    child = complete(tmp_path, spec, patch=spoil)
    # then there is the adapter alone, and everybody says so
    folder = run_folder(tmp_path)
    said = "The merged model is not published: merged and rounded to float32, its held-out loss is"
    assert not (folder / "model").exists()
    assert child.result["results"]["modelURI"] == (folder / "adapter").as_uri()
    assert said in child.result["message"]
    assert said in report_of(tmp_path)["warnings"][0]
    assert said in (folder / "report.html").read_text()
    card = (folder / "adapter/README.md").read_text()
    assert said in card.replace("\\", "")
    assert child.said(f"note {said}")
    assert "more than 0.005 nats off" in child.result["message"]


def test_an_adapter_alone_says_how_it_is_loaded_and_served(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    complete(tmp_path, adapter_spec(tmp_path, base, output={"merge": False}))
    folder = run_folder(tmp_path)
    card, page = (folder / "adapter/README.md").read_text(), (folder / "report.html").read_text()
    assert f"base = AutoModelForCausalLM.from_pretrained('{tmp_path}/base')" in card
    assert "model = PeftModel.from_pretrained(base, 'path/to/this/folder')" in card
    assert "library_name: peft" in card
    assert "--max-lora-rank 8" in page
    assert "--max-lora-rank 8" in card.replace("\\", "")
    assert report_of(tmp_path)["results"]["modelURI"] == (folder / "adapter").as_uri()
    # and the code of the card runs
    code = "\n".join(
        line for line in card.splitlines() if line.startswith(("from peft", "from transf", "base =", "model ="))
    )
    found: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder / "adapter")), found)  # noqa: S102 - as its reader would
    assert isinstance(found["model"], peft.PeftModel)
