"""Adapters beside what else training does: smaller batches, early stops, stages, a base in S3, the fused loss."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.forked import attempt, complete, run_folder, toy_spec
from support.s3server import BUCKET, S3Server
from support.shortage import short_of_memory
from support.tiny_bases import save_base

from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.tasks import Task
from lmft_api.wire.run_file import Stage
from lmft_job import tasks
from lmft_job.adapters.attach import Base, attach, trained
from lmft_job.adapters.quantize import Quantized, quantize
from lmft_job.adapters.targets import Targets, find_targets
from lmft_job.errors import InvalidError
from lmft_job.models.device import Arithmetic
from lmft_job.storage import open_store, put_folder
from lmft_job.training.acceleration.fused_loss import admits_fused_loss

LORA: dict[str, Any] = {"epochs": 2, "learningRate": "1e-2", "adapter": {"rank": 4}}
WANTED = AdapterSettings(AdapterType.LORA, 4, 32, 0.0, ("all-linear",), False)


def lora_spec(home: Path, base: str, **sections: Any) -> dict[str, Any]:
    spec = toy_spec(home, **{"training": LORA, **sections})
    spec["model"] = {"name": base}
    return spec


def report_of(home: Path, name: str = "toy") -> dict[str, Any]:
    return dict(json.loads((run_folder(home, name) / "report.json").read_text()))


def test_short_of_memory_it_continues_with_smaller_batches(tmp_path: Path) -> None:
    # Without dropout: its masks depend on the size of a batch.
    training = {**LORA, "adapter": {"rank": 4, "dropout": "0"}, "gradientCheckpointing": False}
    spec = lora_spec(tmp_path, save_base(tmp_path / "base", "llama"), training=training)
    complete(tmp_path, spec, name="calm")
    child = complete(tmp_path, spec, patch=short_of_memory(2, from_step=7))
    assert child.said("restart")
    assert "perDeviceBatchSize 4 → 2" in report_of(tmp_path)["training"]["adjustments"][0]
    calm, short = (report_of(tmp_path, name)["results"]["evalLoss"] for name in ("calm", "toy"))
    assert short == pytest.approx(calm, abs=1e-4)


def test_it_stops_early_and_keeps_the_best_adapter(tmp_path: Path) -> None:
    training = {"epochs": 8, "learningRate": "0.5", "adapter": {"rank": 4}, "earlyStoppingPatience": 1}
    spec = lora_spec(tmp_path, save_base(tmp_path / "base", "llama"), training=training, output={"weights": "Best"})
    complete(tmp_path, spec)
    report = report_of(tmp_path)
    assert report["training"]["steps"] < report["training"]["totalSteps"]
    best = min(row["evalLoss"] for row in report["evaluations"])
    assert report["results"]["evalLoss"] == best
    assert report["adapter"]["mergedLoss"] == pytest.approx(best, abs=1e-4)


def test_prepare_and_train_give_the_figures_of_one_go(tmp_path: Path) -> None:
    spec = lora_spec(tmp_path, save_base(tmp_path / "base", "llama"))
    complete(tmp_path, spec, name="whole")
    complete(tmp_path, spec, stage=Stage.PREPARE)
    complete(tmp_path, spec, 2, stage=Stage.TRAIN)
    assert report_of(tmp_path)["adapter"] == report_of(tmp_path, "whole")["adapter"]


def test_a_base_in_s3_is_named_by_its_address(tmp_path: Path, s3: S3Server) -> None:
    secret = s3.secret(tmp_path / "secrets" / "model")
    save_base(tmp_path / "base", "llama")
    address = f"s3://{BUCKET}/{tmp_path.name}/base"
    put_folder(open_store(address, secret), "", tmp_path / "base")
    spec = lora_spec(tmp_path, address, output={"merge": False})
    complete(tmp_path, spec)
    folder = run_folder(tmp_path) / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == address
    card = (folder / "README.md").read_text()
    assert f"aws s3 cp --recursive {address} base" in card
    assert "from_pretrained('base')" in card
    assert not [path for path in folder.rglob("*") if str(tmp_path / "work").encode() in path.read_bytes()]


def adapted(kind: str, folder: Path) -> Any:
    save_base(folder, kind)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    targets = find_targets(model, tasks.of(Task.CAUSAL_LM), WANTED)
    model.requires_grad_(False)
    attach(model, targets, WANTED, Base("base"), auto_class="AutoModelForCausalLM", seed=0)
    return model


def test_modules_that_a_kernel_reads_by_itself_get_no_adapter(tmp_path: Path) -> None:
    names = {"in_proj", "x_proj", "dt_proj"}
    model = adapted("mamba", tmp_path)
    assert {name.split(".")[-2] for name, weight in model.named_parameters() if weight.requires_grad} <= {
        "lora_A",
        "lora_B",
        "default",
    }
    assert set(model.peft_config["default"].target_modules) == names

    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    chosen = replace(WANTED, target_modules=("in_proj", "out_proj"))
    with pytest.raises(InvalidError, match=r"targetModules\[1\]: out_proj of a model of type mamba takes no adapter"):
        find_targets(plain, tasks.of(Task.CAUSAL_LM), chosen)
    with pytest.raises(
        InvalidError, match=r"^spec\.training\.adapter: peft puts none on a model of type mamba \(.*out_proj"
    ):
        attach(
            plain,
            Targets(("backbone.layers.0.mixer.out_proj",)),
            WANTED,
            Base("base"),
            auto_class="AutoModelForCausalLM",
            seed=0,
        )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_loss_without_logits_is_admitted_with_a_frozen_head(kind: str, tmp_path: Path) -> None:
    model = adapted(kind, tmp_path)
    before = [weight.clone() for weight in trained(model)]
    assert admits_fused_loss(model, Arithmetic(torch.device("cpu")))
    assert all(torch.equal(one, other) for one, other in zip(before, trained(model), strict=True))
    assert {weight.grad for weight in model.parameters()} == {None}


def test_layers_in_4_bits_are_near_the_layers_that_they_replace(tmp_path: Path) -> None:
    save_base(tmp_path, "gpt2", n_embd=64)
    model, plain = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32) for _ in range(2))
    found = quantize(model, ["lm_head", "transformer.h.1"], torch.float32)
    model.to("cpu")
    assert found == Quantized(4, 0), "one layer of two, without the head"
    name = "transformer.h.0.mlp.c_fc"
    given = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, first = plain.get_submodule(name)(given), model.eval().get_submodule(name)(given)
        second = model.get_submodule(name)(given)
    assert 0.01 < (first - theirs).norm() / theirs.norm() < 0.15
    assert torch.equal(first, second), "an evaluation changes no weight"


def test_a_model_without_a_layer_for_nf4_is_refused(tmp_path: Path) -> None:
    save_base(tmp_path, "gpt2")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    model.transformer.h[0].mlp.c_proj = model.transformer.h[1].mlp.c_proj = torch.nn.Identity()
    with pytest.raises(InvalidError, match="no linear layer of this model has a multiple of 64 inputs"):
        quantize(model, ["lm_head"], torch.float32)


def test_a_template_whose_tokens_the_model_lacks_is_named(tmp_path: Path) -> None:
    data = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Near the tower."}]
    data.write_text((json.dumps({"messages": turns}) + "\n") * 10)
    spec = lora_spec(tmp_path, save_base(tmp_path / "base", "llama"))
    spec["dataset"] = {
        "files": [data.as_uri()], "format": "json", "messagesField": "messages", "chatTemplate": {"name": "ChatML"},
    }  # fmt: skip
    child = attempt(tmp_path, spec)
    assert child.wait() == 2
    assert "spec.dataset.chatTemplate: ChatML adds tokens that the model has no embeddings" in child.result["message"]


def test_an_adapter_learns_conversations_and_its_merge_stops_at_the_end_of_an_answer(tmp_path: Path) -> None:
    # given a chat model, and conversations
    turns = [{"role": "user", "content": "Where is the river?"}, {"role": "assistant", "content": "Near the tower."}]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": turns * (1 + number % 3)}) + "\n" for number in range(40)))
    base = save_base(tmp_path / "base", "llama", max_position_embeddings=256)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    spec = lora_spec(tmp_path, base)
    spec["dataset"] = {
        "files": [data.as_uri()], "format": "json", "messagesField": "messages", "maxLength": 128,
        "chatTemplate": {"name": "ChatML"},
    }  # fmt: skip
    spec["sample"] = {"prompts": ["Where is the river?"], "maxNewTokens": 8}
    # when an adapter is trained on them
    complete(tmp_path, spec)
    # then the merged model has the template, and stops where it does
    folder, report = run_folder(tmp_path) / "model", report_of(tmp_path)
    assert report["results"]["evalLoss"] < report["results"]["baselineEvalLoss"]
    assert report["adapter"]["merged"]
    published = transformers.AutoTokenizer.from_pretrained(folder)
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert published.convert_tokens_to_ids("<|im_end|>") in (ends if isinstance(ends, list) else [ends])
    assert "<|im_start|>" in published.chat_template
