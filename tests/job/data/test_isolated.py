"""Documents of a block that do not see each other: where they begin, what is predicted, and by which losses."""

import itertools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.corpora import write_json
from support.data_helpers import json_data, prepare_toy, write_lines

from lmft_api.tasks import Task
from lmft_job.data.isolated.blocks import DocumentBlocks, DocumentBlockWriter
from lmft_job.data.rows import BATCH_ROWS, BlockRows
from lmft_job.errors import InvalidError
from lmft_job.evaluation.held_out import evaluate_held_out
from lmft_job.models.device import Arithmetic
from lmft_job.tasks.base import IGNORED
from lmft_job.training.acceleration import selection

CPU = Arithmetic(torch.device("cpu"))
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "llama": SMALL,
    "mistral": SMALL | {"sliding_window": 5, "num_key_value_heads": 1},
}


def pieces_of(documents: list[list[int]], size: int) -> list[list[list[int]]]:
    """The documents of each block, the plain way: token by token."""
    tokens = [(number, token) for number, document in enumerate(documents) for token in document]
    blocks = [tokens[start : start + size] for start in range(0, len(tokens) - size + 1, size)]
    return [[[token for _, token in part] for _, part in itertools.groupby(block, lambda t: t[0])] for block in blocks]


def drawn(seed: int, count: int) -> list[list[int]]:
    """Documents of no token, of one, of some, and of several blocks."""
    draw = random.Random(seed)
    lengths = [draw.choice((0, 1, 1, 2, draw.randrange(3, 12), draw.randrange(20, 90))) for _ in range(count)]
    return [[draw.randrange(10, 500) for _ in range(length)] for length in lengths]


def written(path: Path, documents: list[list[int]], size: int, at_once: int) -> tuple[DocumentBlocks, int]:
    with DocumentBlockWriter(path, size, 500) as writer:
        for start in range(0, len(documents), at_once):
            some = documents[start : start + at_once]
            ids = np.array([token for document in some for token in document], np.uint32)
            writer.add(ids, np.array([len(document) for document in some], np.int64))
    return DocumentBlocks(path), writer.targets


@pytest.mark.parametrize(("seed", "size", "at_once"), [(0, 8, 1), (1, 16, 7), (2, 16, 1000), (3, 64, 13)])
def test_blocks_say_where_their_documents_begin(seed: int, size: int, at_once: int, tmp_path: Path) -> None:
    documents = drawn(seed, 300)

    blocks, targets = written(tmp_path / "a.arrow", documents, size, at_once)

    expected = pieces_of(documents, size)
    assert len(blocks) == len(expected)
    for index, pieces in enumerate(expected):
        item = blocks[index + len(blocks)]  # of the second epoch
        assert item["input_ids"].tolist() == [token for piece in pieces for token in piece]
        assert item["lengths"].tolist() == [len(piece) for piece in pieces]
        assert item["labels"].tolist() == [label for piece in pieces for label in (IGNORED, *piece[1:])]
    assert targets == sum(len(piece) - 1 for pieces in expected for piece in pieces)
    assert pickle.loads(pickle.dumps(blocks))[3]["lengths"].tolist() == blocks[3]["lengths"].tolist()  # noqa: S301


def test_documents_run_on_over_record_batches(tmp_path: Path) -> None:
    documents = drawn(4, 7000)

    blocks, _ = written(tmp_path / "a.arrow", documents, 8, 500)

    expected = pieces_of(documents, 8)
    assert len(blocks) == len(expected) > 2 * BATCH_ROWS
    for index in (0, BATCH_ROWS - 1, BATCH_ROWS, 2 * BATCH_ROWS, len(blocks) - 1):
        assert blocks[index]["lengths"].tolist() == [len(piece) for piece in expected[index]]


def test_prepared_blocks_hold_the_same_tokens_as_without_isolation(tmp_path: Path) -> None:
    address = f"file://{write_json(tmp_path / 'a.jsonl', 200, vocabulary=300, mean_words=15)}"
    dataset = json_data(address, textField="answers.text", blockSize=32)

    plain = prepare_toy(dataset, tmp_path / "cache")
    apart = prepare_toy(dataset | {"isolateDocuments": True}, tmp_path / "cache")
    again = prepare_toy(dataset | {"isolateDocuments": True}, tmp_path / "cache")
    off = prepare_toy(dataset | {"isolateDocuments": False}, tmp_path / "cache")

    assert isinstance(plain.train, BlockRows)
    assert isinstance(apart.train, DocumentBlocks)
    for one, other in ((plain.train, apart.train), (plain.held_out, apart.held_out)):
        assert len(one) == len(other)
        assert all((one[row]["input_ids"] == other[row]["input_ids"]).all() for row in range(len(one)))
    assert apart.figures.train_targets == sum(
        int((apart.train[row]["labels"] != IGNORED).sum()) for row in range(len(apart.train))
    )
    assert plain.figures.train_targets is None
    assert apart.fingerprint != plain.fingerprint
    assert (again.reused, again.fingerprint) == (True, apart.fingerprint)
    assert (off.reused, off.fingerprint) == (True, plain.fingerprint)


def test_documents_of_one_token_are_refused(tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *({"text": "a"} for _ in range(200)))

    with pytest.raises(InvalidError) as caught:
        prepare_toy(json_data(address, blockSize=8, isolateDocuments=True), tmp_path / "cache")

    assert "spec.dataset.isolateDocuments: every one of the training documents is a single token" in str(caught.value)
    assert "held-out documents" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_documents_alone_before_training_and_compiled(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a model as it is before training, with its cache on, and blocks of several documents
    documents = drawn(5, 60)
    blocks, targets = written(tmp_path / "a.arrow", documents, 32, 9)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=500, **KINDS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert model.config.use_cache
    collate = _collator(tmp_path)
    # and the losses of every document alone
    losses = 0.0
    with torch.no_grad():
        for piece in (piece for pieces in pieces_of(documents, 32) for piece in pieces if len(piece) > 1):
            ids = torch.tensor([piece])
            losses += float(model(input_ids=ids, labels=ids).loss) * (len(piece) - 1)
    # when it is evaluated, plainly and with its layers compiled
    plain = evaluate_held_out(model, blocks, collate, Task.CAUSAL_LM, batch_size=4, arithmetic=CPU)
    assert model.config.use_cache
    monkeypatch.setattr(selection, "BACKEND", "eager")
    assert selection.compile_layers(model)
    compiled = evaluate_held_out(model, blocks, collate, Task.CAUSAL_LM, batch_size=4, arithmetic=CPU)
    # then the loss is that of every document alone
    assert plain.figures.loss == pytest.approx(losses / targets, abs=1e-5)
    assert compiled.figures.loss == pytest.approx(losses / targets, abs=1e-5)
    assert plain.units is not None
    assert plain.units.targets.sum() == targets


def _collator(folder: Path) -> Any:
    """The one that a run with isolated documents gets."""
    texts = write_lines(folder / "texts.jsonl", *({"text": f"some words in row {number}"} for number in range(40)))
    return prepare_toy(json_data(texts, blockSize=8, isolateDocuments=True), folder / "cache").collator
