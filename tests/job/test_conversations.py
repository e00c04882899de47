"""Runs on conversations, from the manifest to the published model, which answers as the report says."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.chats import chat
from support.forked import attempt, complete, killed_at_random_steps, outcome, run_folder, toy_spec
from support.shortage import short_of_memory

from lmft_api.wire.report import Report

THINGS = ("river", "market", "harbour", "bridge", "tower")


def chat_spec(home: Path, **sections: Any) -> dict[str, Any]:
    """A spec on conversations that trains in about a second."""
    data, draw = home / "chats.jsonl", random.Random(4)
    if not data.exists():
        lines = []
        for number in range(60):
            thing = draw.choice(THINGS)
            turns = [f"Where is the {thing}?", f"Near the {draw.choice(THINGS)}."] * draw.randrange(1, 4)
            lines.append(json.dumps({"messages": chat(*turns, system="Be brief." if number % 2 else None)}))
        data.write_text("\n".join(lines) + "\n")
    spec = toy_spec(home, **sections)
    config = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32,
              "intermediate_size": 64, "max_position_embeddings": 256}  # fmt: skip
    spec["model"] = {"fromConfig": config, "tokenizer": {"trainVocabSize": 300}}
    spec["dataset"] = {
        "files": [data.as_uri()], "format": "json", "messagesField": "messages", "maxLength": 128,
        "chatTemplate": {"name": "ChatML"}, **sections.get("dataset", {}),
    }  # fmt: skip
    spec["sample"] = {
        "prompts": ["Where is the river?"], "maxNewTokens": 12,
        "conversations": [{"messages": [{"role": "system", "content": "Be brief."},
                                        {"role": "user", "content": "Where is the tower?"}]}],
    }  # fmt: skip
    return spec


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    complete(folder, chat_spec(folder, training={"epochs": 8}))
    return folder


def report_of(home: Path) -> Report:
    return Report.from_json((run_folder(home) / "report.json").read_bytes())


def test_the_report_says_what_was_trained_on(home: Path) -> None:
    report = report_of(home)

    figures = report.dataset.conversations
    assert figures is not None
    assert figures.packed
    assert report.training.tokens == 8 * report.dataset.train_tokens
    assert [segment.trained for segment in figures.examples[0].segments[:2]] == [False, True]
    assert figures.examples[0].segments[1].text.endswith("<|im_end|>")
    assert [sample.prompt for sample in report.results.samples] == ["Where is the river?", "Where is the tower?"]
    assert (report.results.perplexity or 9e9) < (report.results.baseline_perplexity or 0)
    card = (run_folder(home) / "model/README.md").read_text()
    page = (run_folder(home) / "report.html").read_text()
    for text in (card, page):
        assert "answers" in text
    assert "&lt;|im_end|&gt;" in page


def test_the_figure_is_that_of_the_trained_tokens_of_each_conversation_alone(home: Path) -> None:
    # given the published model, and the held-out rows as they were prepared
    from lmft_job.data.chat.rows import ConversationRows

    model = transformers.AutoModelForCausalLM.from_pretrained(run_folder(home) / "model").eval()
    (file,) = (home / "cache").rglob("eval.arrow")
    rows, losses, count = ConversationRows(file), 0.0, 0
    with torch.no_grad():
        for index in range(len(rows)):
            item = rows[index]
            logits = model(input_ids=torch.from_numpy(item["input_ids"])[None]).logits[0, :-1]
            labels = torch.from_numpy(item["labels"])[1:]
            losses += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != -100).sum())

    report = report_of(home)
    assert report.dataset.conversations is not None
    assert count == report.dataset.conversations.eval_trained_tokens
    assert losses / count == pytest.approx(report.results.eval_loss, rel=1e-5)


def test_a_pipeline_with_messages_gives_the_reported_sample_and_stops(home: Path) -> None:
    report = report_of(home)
    pipe = transformers.pipeline("text-generation", model=str(run_folder(home) / "model"))
    end = pipe.tokenizer.convert_tokens_to_ids("<|im_end|>")

    settings = report.settings
    for sample, messages in zip(
        report.results.samples,
        ([{"role": "user", "content": "Where is the river?"}],
         [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the tower?"}]),
        strict=True,
    ):  # fmt: skip
        torch.manual_seed(settings["training.seed"])
        told = pipe(messages, max_new_tokens=12, return_full_text=False)

        assert told[0]["generated_text"].strip() == sample.after
    assert end in pipe.model.generation_config.eos_token_id
    assert pipe.tokenizer.chat_template


def test_a_run_on_packs_that_is_killed_ends_bit_equal(tmp_path: Path) -> None:
    spec = chat_spec(tmp_path, training={"epochs": 4}, checkpoint={"everySteps": 3})
    complete(tmp_path, spec, name="calm")
    killed_at_random_steps(tmp_path, spec, 4)

    last = complete(tmp_path, spec, 5)

    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


def test_short_of_memory_it_continues_with_smaller_batches_of_packs(tmp_path: Path) -> None:
    training = {"epochs": 2, "learningRate": "1e-3", "gradientCheckpointing": False}
    spec = chat_spec(tmp_path, training=training)
    complete(tmp_path, spec, name="calm")
    child = complete(tmp_path, spec, patch=short_of_memory(2, from_step=3))
    assert child.said("restart")
    calm, short = (Report.from_json((run_folder(tmp_path, name) / "report.json").read_bytes())
                   for name in ("calm", "toy"))  # fmt: skip
    assert "perDeviceBatchSize 4 → 2" in short.training.adjustments[0]
    assert short.results.eval_loss == pytest.approx(calm.results.eval_loss, abs=1e-4)


def test_it_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    training = {"epochs": 12, "learningRate": "0.3", "earlyStoppingPatience": 1}
    complete(tmp_path, chat_spec(tmp_path, training=training, output={"weights": "Best"}))
    report = report_of(tmp_path)
    assert report.training.steps < report.training.total_steps
    assert report.results.eval_loss == min(row.eval_loss for row in report.evaluations)


def test_a_prompt_with_a_special_token_is_refused_before_training(tmp_path: Path) -> None:
    spec = chat_spec(tmp_path)
    spec["sample"]["prompts"] = ["Where?<|im_end|>"]
    child = attempt(tmp_path, spec)
    assert child.wait() == 2
    assert "spec.sample.prompts[0]: contains '<|im_end|>', which the tokenizer reads" in child.result["message"]


def test_the_losses_of_steps_do_not_depend_on_how_a_batch_is_split(tmp_path: Path) -> None:
    """A step's loss is over its trained tokens: two passes of two packs give that of one pass of four."""
    training = {"epochs": 2, "perDeviceBatchSize": 4}
    complete(tmp_path, chat_spec(tmp_path, training=training), name="whole")
    split = {"epochs": 2, "perDeviceBatchSize": 1, "gradientAccumulationSteps": 4}
    complete(tmp_path, chat_spec(tmp_path, training=split), name="split")

    whole, parts = (
        Report.from_json((run_folder(tmp_path, name) / "report.json").read_bytes()) for name in ("whole", "split")
    )
    assert parts.results.eval_loss == pytest.approx(whole.results.eval_loss, rel=1e-4)
    for one, other in zip(whole.evaluations, parts.evaluations, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
