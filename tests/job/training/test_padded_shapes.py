"""Layers are compiled for padded rows too: batches have few lengths, and nothing else differs from the plain loop."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.chats import chat
from support.comparing import losses, report, sure
from support.forked import TERM, TEXTS, attempt, complete, outcome
from support.ranks import complete_ranks
from support.tiny_bases import save_base

from lmft_api.spec import Compile
from lmft_api.tasks import Task
from lmft_job.data.rows import LabelledRows, PadRows, RowWriter
from lmft_job.models.device import Arithmetic
from lmft_job.training.acceleration import selection
from lmft_job.training.acceleration.buckets import PaddedRows
from lmft_job.training.batch import Checkpointing

WORDS = " ".join(TEXTS).split()
FIGURES = ("baselineEvalLoss", "evalLoss", "trainerEvalLoss", "evalLossStandardError")


def labelled(home: Path, **training: Any) -> dict[str, Any]:
    """Rows of varied length with labels, which divide evenly neither in training nor in evaluation."""
    draw, data = random.Random(5), home / "texts.jsonl"
    rows = [
        {"text": " ".join(draw.choices(WORDS, k=draw.randint(2, 14))), "label": draw.choice("ab")} for _ in range(75)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sure(home, task="SequenceClassification", training={"perDeviceBatchSize": 4, "epochs": 2} | training)


def conversations(home: Path, **training: Any) -> dict[str, Any]:
    """Conversations of varied length, one a row, and a pretrained model."""
    draw, data = random.Random(4), home / "chats.jsonl"
    turns = [[draw.choice(WORDS), draw.choice(WORDS)] * draw.randint(1, 5) for _ in range(61)]
    data.write_text("".join(json.dumps({"messages": chat(*some)}) + "\n" for some in turns))
    spec = sure(home, training={"perDeviceBatchSize": 4, "epochs": 2} | training)
    base = save_base(home / "base", "llama", max_position_embeddings=256)
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "base")
    spec["model"] = {"name": base}
    spec["dataset"] = {
        "files": [data.as_uri()], "format": "json", "messagesField": "messages", "maxLength": 128, "packing": "None",
        "chatTemplate": {"text": "{% for m in messages %}{{ m.content }}" + tokenizer.eos_token + "{% endfor %}"},
    }  # fmt: skip
    spec["sample"] = {"prompts": ["Where is the river?"], "maxNewTokens": 8}
    return spec


def adapted(home: Path) -> dict[str, Any]:
    return conversations(home, adapter={"rank": 4, "dropout": "0"}, learningRate="1e-2")


def as_on_a_gpu(teller: Any) -> None:
    """In the process that trains: what a GPU gets is chosen, and the compiler tells of each graph."""
    from lmft_job.stages import inputs

    def counted(graph: Any, examples: Any) -> Any:
        teller.tell("graph")
        return graph.forward

    chosen = inputs.choose_acceleration

    def choose(*args: Any, **options: Any) -> Any:
        acceleration = chosen(*args, **options)
        teller.tell("lengths", *acceleration.lengths)
        return acceleration

    selection.BACKEND = counted
    selection.COMPILING_PAYS_STEPS = 5
    selection.on_gpu = selection.can_compile = lambda *_: True
    selection._are_large = lambda *_: False
    inputs.choose_acceleration = choose


@pytest.mark.parametrize(
    ("made", "graphs"),
    [
        pytest.param(labelled, 4, id="labels"),
        pytest.param(conversations, 4, id="conversations"),
        pytest.param(adapted, 5, id="an adapter on conversations"),
    ],
)
def test_few_graphs_are_made_and_nothing_else_differs(made: Any, graphs: int, tmp_path: Path) -> None:
    """``graphs`` of a length: layers of an encoder and its embeddings, or layers and the loss; each with and without
    gradients; and the first layer's above embeddings that are not trained."""
    spec = made(tmp_path)
    complete(tmp_path, spec, name="plain")

    child = complete(tmp_path, spec, patch=as_on_a_gpu)

    [lengths] = [line.split()[1:] for line in child.lines if line.startswith("lengths")]
    assert 1 < len(lengths) <= 8
    assert 0 < sum(line == "graph" for line in child.lines) <= graphs * len(lengths)
    ours, theirs = report(tmp_path), report(tmp_path, "plain")
    assert f"layers compiled for {len(lengths)} lengths of rows" in ours["acceleration"]
    assert theirs["acceleration"] == ([] if made is labelled else ["logits of trained tokens alone"])
    assert list(losses(tmp_path)) == pytest.approx(list(losses(tmp_path, "plain")), abs=1e-5)
    assert ours["training"]["tokens"] == theirs["training"]["tokens"]
    for figure in FIGURES:
        assert ours["results"][figure] == pytest.approx(theirs["results"][figure], abs=1e-6)
    for figure in ("accuracy", "accuracyStandardError"):
        assert ours["results"].get(figure) == theirs["results"].get(figure)
    assert ours["results"]["samples"] == theirs["results"]["samples"]


def test_ranks_fill_and_lengthen_their_passes_too(tmp_path: Path) -> None:
    spec = labelled(tmp_path, perDeviceBatchSize=7, epochs=4)
    complete(tmp_path, spec, name="plain")
    spec["training"] |= {"perDeviceBatchSize": 4, "batchSize": 7}

    children = complete_ranks(tmp_path, spec, 2, patch=as_on_a_gpu)

    assert all(child.said("graph") for child in children)
    assert list(losses(tmp_path)) == pytest.approx(list(losses(tmp_path, "plain")), abs=1e-5)
    ours, theirs = report(tmp_path), report(tmp_path, "plain")
    assert ours["training"]["tokens"] == theirs["training"]["tokens"]
    assert ours["results"]["accuracy"] == theirs["results"]["accuracy"]


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    spec = labelled(tmp_path)
    complete(tmp_path, spec, name="whole", patch=as_on_a_gpu)

    first = attempt(tmp_path, spec, patch=as_on_a_gpu)
    first.until("step 8 ")
    first.signal(TERM)
    assert first.wait() == 75
    complete(tmp_path, spec, 2, patch=as_on_a_gpu)

    assert outcome(tmp_path) == outcome(tmp_path, "whole")


def rows_of(folder: Path, lengths: list[int]) -> LabelledRows:
    with RowWriter(folder / "rows.arrow", 100) as writer:
        for number, length in enumerate(lengths):
            writer.add(torch.randint(3, 100, (length,)).numpy(), number % 2)
    return LabelledRows(folder / "rows.arrow")


CPU = Arithmetic(torch.device("cpu"))
BERT = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("steps", "options", "lengths"),
    [
        pytest.param(10_000, {}, 2, id="many steps"),
        pytest.param(1_000, {}, 2, id="as many as two lengths take"),
        pytest.param(999, {}, 0, id="one length would add much padding"),
        pytest.param(10_000, {"wanted": Compile.OFF}, 0, id="not wanted"),
        pytest.param(10_000, {"own_loss": True}, 0, id="a user's loss may not know rows without a label"),
    ],
)
def test_it_is_compiled_for_as_many_lengths_as_the_steps_pay_for(
    steps: int, options: dict[str, Any], lengths: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(tmp_path, [8] * 50 + [64] * 20)
    held_out = rows.padded_lengths()[:9]
    padded = PaddedRows(rows, rows.padded_lengths(), held_out, PadRows(2), 64, batch=1)
    config = transformers.AutoConfig.for_model("bert", **BERT)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    monkeypatch.setattr(selection, "on_gpu", lambda _: True)
    monkeypatch.setattr(selection, "can_compile", lambda: True)
    given = {"wanted": Compile.AUTO, "own_loss": False, "block_size": None, "tokens": 0} | options

    chosen = selection.choose_acceleration(
        model, Task.SEQUENCE_CLASSIFICATION, CPU, padded=padded, steps=steps, **given
    )

    assert chosen.padded
    assert len(chosen.lengths) == lengths
    assert chosen.compiled == bool(lengths)
    compiled = [part for part in chosen.described(model, CPU) if part.startswith("layers compiled")]
    assert compiled == ([f"layers compiled for {lengths} lengths of rows"] if lengths else [])
    collate = chosen.collate(PadRows(2), 4)
    assert collate([rows[0], rows[1]])["input_ids"].shape == ((4, 8) if lengths else (2, 8))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torch's compiler with nothing compiled; the list grows by each graph."""
    import torch._dynamo.config as limits
    from torch._dynamo.utils import counters

    graphs: list[Any] = []
    monkeypatch.setattr(selection, "BACKEND", lambda graph, examples: graphs.append(graph) or graph.forward)
    torch._dynamo.reset()
    counters.clear()
    with limits.patch(recompile_limit=limits.recompile_limit):
        yield graphs
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize(("most", "checkpointed"), [(256, 1), (4, 0)])
def test_lengths_beyond_torchs_own_limit_are_compiled_and_any_further_ones_are_told(
    most: int, checkpointed: int, compiler: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given compiled layers, some of which keep only their input, and more shapes than torch compiles by itself
    monkeypatch.setattr(selection, "MOST_GRAPHS", most)
    monkeypatch.setattr(selection, "on_gpu", lambda _: True)
    config = transformers.AutoConfig.for_model("bert", **BERT)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert selection.compile_layers(model)
    acceleration = selection.Acceleration(compiled=True, checkpointing=Checkpointing(checkpointed))
    lengths = range(8, 33, 8)

    with acceleration.training(model):
        for length in lengths:
            ids = torch.full((2, length), 5)
            with torch.no_grad():
                model.eval()(input_ids=ids)
            model.train()(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()

    [told] = [part for part in acceleration.described(model, CPU) if part.startswith("layers compiled")]
    assert told.endswith("in part: they had more shapes than torch compiles") == (most == 4)
    if most == 256:
        assert 8 < len(compiler) <= len(lengths) * selection.graphs_of_a_length(model, acceleration.checkpointing)
