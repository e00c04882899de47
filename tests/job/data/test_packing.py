"""Packing equals the tutorial's group_texts over the whole corpus, and the tutorial's split and order of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.corpora import rows, write_json
from support.data_helpers import json_data, prepare_toy, write_lines
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from lmft_api.reasons import ExitCode, Reason
from lmft_api.tasks import Task
from lmft_job.attempt.ending import conclude
from lmft_job.data.rows import BATCH_ROWS, BlockRows, BlockWriter, narrowest
from lmft_job.data.sources.splits import hold_out
from lmft_job.data.tokens.packing import encoded
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers
from lmft_job.process.signals import Interrupt


def group_texts(texts: list[list[int]], block_size: int) -> list[list[int]]:
    """The guide's function, over all texts at once."""
    joined = [token for text in texts for token in text]
    whole = len(joined) // block_size * block_size
    return [joined[start : start + block_size] for start in range(0, whole, block_size)]


def texts_of(count: int, seed: int = 0) -> list[str]:
    return [" ".join(row["answers"]["text"]) for row in rows(count, seed=seed, vocabulary=300, mean_words=15)]


@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM"])
def test_blocks_equal_those_of_the_guides_recipe_with_datasets(tmp_path: Path, task: str) -> None:
    import datasets

    path = write_json(tmp_path / "corpus.jsonl", 300, vocabulary=300, mean_words=15)
    tokenizer = tokenizers.train(iter([texts_of(300)]), 400, Task(task))

    prepared = prepare_toy(
        json_data(f"file://{path}", textField="answers.text", blockSize=32),
        tmp_path / "cache",
        task,
        tokenizer=tokenizer,
    )

    data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
    data = data.train_test_split(test_size=0.2, seed=42).flatten()
    for side, ours in (("train", prepared.train), ("test", prepared.held_out)):
        texts = [" ".join(paragraphs) for paragraphs in data[side]["answers.text"]]
        expected = group_texts(tokenizer(texts)["input_ids"], 32)
        assert isinstance(ours, BlockRows)
        assert [ours.block(row).tolist() for row in range(len(ours))] == expected


@pytest.mark.parametrize(("count", "percent", "seed"), [(10, 20, 42), (79, 20, 42), (1000, 7, 3), (11, 90, 0)])
def test_the_split_is_that_of_train_test_split(count: int, percent: int, seed: int) -> None:
    import datasets

    theirs = datasets.Dataset.from_dict({"row": list(range(count))}).train_test_split(percent / 100, seed=seed)

    train, held_out = hold_out(count, percent, seed)

    assert train.tolist() == list(theirs["train"]["row"])
    assert held_out.tolist() == list(theirs["test"]["row"])


@pytest.mark.parametrize(
    ("vocabulary", "kind"), [(257, np.uint16), (65_536, np.uint16), (65_537, np.uint32), (250_000, np.uint32)]
)
def test_ids_take_the_narrowest_type(vocabulary: int, kind: Any) -> None:
    assert narrowest(vocabulary) == kind


def test_ids_beyond_sixteen_bits_survive(tmp_path: Path) -> None:
    ids = np.array([0, 65_535, 65_536, 128_000], np.uint32)
    with BlockWriter(tmp_path / "blocks.arrow", 4, 128_001) as writer:
        writer.add(ids)

    assert BlockRows(tmp_path / "blocks.arrow").block(0).tolist() == ids.tolist()


def test_blocks_run_on_over_record_batches_and_the_remainder_is_dropped(tmp_path: Path) -> None:
    stream = (np.arange(2 * BATCH_ROWS * 8 + 8 * 3 + 5) % 60_000).astype(np.uint32)
    with BlockWriter(tmp_path / "blocks.arrow", 8, 60_000) as writer:
        for piece in np.array_split(stream, 37):
            writer.add(piece)

    read = BlockRows(tmp_path / "blocks.arrow")

    assert len(read) == writer.blocks == 2 * BATCH_ROWS + 3
    assert writer.tokens == len(stream)
    for row in (0, 1, BATCH_ROWS - 1, BATCH_ROWS, 2 * BATCH_ROWS, len(read) - 1):
        assert read.block(row).tolist() == stream[row * 8 : row * 8 + 8].tolist()


def test_the_file_opens_with_datasets(tmp_path: Path) -> None:
    import datasets

    with BlockWriter(tmp_path / "blocks.arrow", 4, 100) as writer:
        writer.add(np.arange(12, dtype=np.uint32))

    assert list(datasets.Dataset.from_file(str(tmp_path / "blocks.arrow"))["input_ids"])[2] == [8, 9, 10, 11]


@pytest.mark.parametrize("max_length", [None, 7])
def test_ids_are_those_of_a_call_of_the_tokenizer(max_length: int | None) -> None:
    texts = texts_of(50)
    tokenizer = tokenizers.train(iter([texts]), 400, Task.MASKED_LM)
    options = {} if max_length is None else {"truncation": True, "max_length": max_length}
    expected = tokenizer(texts, **options)["input_ids"]

    flat, lengths, uncut = [], [], []
    for ids, counts, whole in encoded(tokenizer, iter([texts[:20], texts[20:]]), lambda: None, max_length):
        flat += ids.tolist()
        lengths += counts.tolist()
        uncut += whole.tolist()

    assert flat == [token for text in expected for token in text]
    assert lengths == [len(text) for text in expected]
    assert uncut == [len(ids) for ids in tokenizer(texts)["input_ids"]]


def test_a_stop_that_is_asked_for_ends_tokenising(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    address = f"file://{write_json(tmp_path / 'corpus.jsonl', 50)}"
    with pytest.raises(StopError):
        prepare_toy(json_data(address, textField="answers.text"), tmp_path / "cache", check=stop)

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("max_length", [None, 16])
def test_a_tokenizer_whose_pattern_never_ends_is_told(max_length: int | None) -> None:
    # given a pattern that backtracks without end, which panics in Rust
    tokenizer = tokenizers.train(iter([["a b c"]]), 0, Task.CAUSAL_LM)
    pattern = Split(Regex("(a+)+$"), behavior="isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([pattern, ByteLevel(add_prefix_space=False)])
    # when a text of it is encoded
    with pytest.raises(InvalidError, match=r"its tokenizer fails on a text .*; set spec\.model\.tokenizer\.name"):
        list(encoded(tokenizer, iter([["a" * 300 + "b"]]), lambda: None, max_length))
    # and a run in which nobody expected it ends with the same words
    ending = conclude(lambda: tokenizer("a" * 300 + "b"), Interrupt())
    assert (ending.exit_code, ending.result.reason) == (ExitCode.INVALID, Reason.INVALID_SPEC)
    assert "its tokenizer fails on a text" in ending.result.message


def test_empty_and_null_texts_are_dropped_and_counted(tmp_path: Path) -> None:
    good = [{"text": f"some words in row {number} to make it long enough"} for number in range(40)]
    bad = [{"text": ""}, {"text": None}, {"other": 1}, {"text": "  \n"}]
    with_bad = write_lines(tmp_path / "with.jsonl", *good[:20], *bad, *good[20:])

    prepared = prepare_toy(json_data(with_bad, blockSize=8), tmp_path / "cache")

    assert prepared.figures.dropped_rows == 4
    assert prepared.figures.train_rows + prepared.figures.eval_rows == 40


def test_a_reader_pickles_by_its_path(tmp_path: Path) -> None:
    import pickle

    with BlockWriter(tmp_path / "blocks.arrow", 4, 100) as writer:
        writer.add(np.arange(12, dtype=np.uint32))
    read = BlockRows(tmp_path / "blocks.arrow")

    assert pickle.loads(pickle.dumps(read)).block(2).tolist() == [8, 9, 10, 11]  # noqa: S301 (our own bytes)
