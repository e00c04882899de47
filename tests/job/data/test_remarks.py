"""What no figure shows of the data is noted: what was cut, what stands on both sides, what became of the tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_helpers import json_data, prepare_toy, write_lines
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmft_job.errors import InvalidError
from lmft_job.report.remarks import data_remarks


def test_texts_that_are_cut_are_counted_and_their_real_lengths_reported(tmp_path: Path) -> None:
    # given texts of which a quarter has 520 words, and a model that takes 32 tokens
    texts = ["a " * 520 + str(n) if n % 4 == 0 else f"a text {n}" for n in range(80)]
    address = write_lines(tmp_path / "a.jsonl", *({"text": text, "label": n % 3} for n, text in enumerate(texts)))

    prepared = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification", max_positions=32)

    figures, tokenizer = prepared.figures, prepared.tokenizer
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert figures.lengths is not None
    assert figures.lengths.maximum in lengths
    assert figures.lengths.maximum > 500
    assert (figures.train_cut_rows or 0) + (figures.eval_cut_rows or 0) == 20
    assert max(len(prepared.train[row]["input_ids"]) for row in range(64)) == 32
    [said] = [remark for remark in data_remarks(figures) if "longer" in remark]
    assert said.endswith("are longer than the 32 tokens that the model takes, and were cut there.")
    assert f"{figures.train_cut_rows} of 64 training texts" in said


def test_a_tokenizer_that_became_smaller_than_asked_for_is_noted_again_when_it_is_reused(tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *({"text": f"row {n} of few words"} for n in range(60)))
    data = json_data(address, blockSize=8)
    for _ in range(2):
        prepared = prepare_toy(data, tmp_path / "cache", vocabulary=50_000)
        assert prepared.figures.vocabulary == len(prepared.tokenizer) < 400
        [said] = data_remarks(prepared.figures)
        assert f"The tokenizer has {len(prepared.tokenizer)} tokens, not the 50,000 that" in said
        assert "spec.model.tokenizer.trainVocabSize" in said
    assert prepared.reused


def test_held_out_texts_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    # given a file that holds every text of another once more
    rows = [{"text": f"row {n} of some words"} for n in range(50)]
    one, two = write_lines(tmp_path / "a.jsonl", *rows), write_lines(tmp_path / "b.jsonl", *rows[:10], *rows[:10])
    data = json_data(one, two, split="train[:50]", evalSplit="train[50:]", blockSize=8)

    figures = prepare_toy(data, tmp_path / "cache").figures

    assert figures.eval_rows_in_train == 20
    [said] = [remark for remark in data_remarks(figures) if "word for word" in remark]
    assert said.startswith("20 of the 20 held-out texts also appear in the training data")
    apart = prepare_toy(json_data(one, split="train[:40]", evalSplit="train[40:]", blockSize=8), tmp_path / "cache")
    assert apart.figures.eval_rows_in_train == 0


@pytest.mark.parametrize(
    ("split", "held_out", "shared"),
    [
        ("train", "train", 60),
        ("train", "train[:10%]", 6),
        ("train[:50]", "train[45:]", 5),
        ("train[10%:]", "train[:10]", 4),
        ("train[:-5]", "train[-10:]", 5),
    ],
)
def test_rows_that_are_trained_on_are_no_test(split: str, held_out: str, shared: int, tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *({"text": f"row {n} of some words"} for n in range(60)))

    with pytest.raises(InvalidError) as caught:
        prepare_toy(json_data(address, split=split, evalSplit=held_out, blockSize=8), tmp_path / "cache")

    [problem] = caught.value.problems
    assert problem.startswith(f"spec.dataset.evalSplit: {held_out!r} has {shared} of the rows that {split!r} trains on")


def test_an_id_beyond_16_bits_in_a_small_vocabulary_is_stored_as_it_is(tmp_path: Path) -> None:
    words = {**{f"w{n}": n for n in range(77)}, "[UNK]": 77, "far": 66_000}
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[UNK]")
    address = write_lines(tmp_path / "a.jsonl", *({"text": "far w1 w2 far", "label": n % 2} for n in range(60)))

    blocks = prepare_toy(json_data(address, blockSize=8), tmp_path / "cache", tokenizer=tokenizer)
    rows = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification", tokenizer=tokenizer)

    assert blocks.train[0]["input_ids"].tolist() == [66_000, 1, 2, 66_000] * 2
    assert rows.train[0]["input_ids"].tolist() == [66_000, 1, 2, 66_000]


def test_labels_are_those_of_the_model_that_knows_them(tmp_path: Path) -> None:
    mood = ["positive", "negative", "neutral"]
    rows = [{"text": f"words {n}", "label": sorted(mood)[n % 3]} for n in range(60)]
    address = write_lines(tmp_path / "a.jsonl", *rows)

    prepared = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification", model_labels=mood)
    plain = prepare_toy(json_data(address), tmp_path / "cache", "SequenceClassification")

    assert (prepared.labels, plain.labels) == (mood, sorted(mood))
    assert prepared.fingerprint != plain.fingerprint
    for row in range(10):
        assert mood[prepared.train[row]["labels"]] == sorted(mood)[plain.train[row]["labels"]]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}],
        [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}],
        [{"role": "user", "parts": [{"text": "Hello?"}]}],
        [{"role": "user", "text": "Hello?"}],
        [{"speaker": "A", "text": "Hello?"}, {"speaker": "B", "text": "Yes."}],
        [{"sender": "A", "message": "Hello?", "id": 1}],
        [{"user": "Hello?", "assistant": "Yes."}],
        json.dumps([{"role": "user", "content": "Hello?"}]),
        str([{"role": "user", "content": "Hello?"}]),
    ],
    ids=[
        "OpenAI's",
        "ShareGPT's",
        "Gemini's",
        "with texts",
        "with speakers",
        "with senders",
        "by exchange",
        "as JSON in a text",
        "as Python shows it",
    ],
)
@pytest.mark.parametrize("field", ["turns", "turns.content", "turns.value"])
def test_conversations_are_refused_with_the_way_to_do_it(messages: Any, field: str, tmp_path: Path) -> None:
    address = write_lines(tmp_path / "a.jsonl", *[{"turns": messages}] * 60)

    with pytest.raises(InvalidError) as caught:
        prepare_toy(json_data(address, textField=field, blockSize=8), tmp_path / "cache")

    if isinstance(messages, str) and field != "turns":
        assert "no field" in str(caught.value)
    else:
        assert f"spec.dataset.textField: {field!r} holds conversations" in str(caught.value)
        assert "spec.dataset.messagesField" in str(caught.value)
        assert "each message as {role, content}" in str(caught.value)


def test_lists_of_texts_that_are_no_turns_are_still_texts(tmp_path: Path) -> None:
    answers = [{"author": "A", "text": "A river is wide."}, {"author": "B", "text": "It is cold.", "score": 3}]
    address = write_lines(tmp_path / "a.jsonl", *[{"answers": answers}] * 60)

    assert prepare_toy(json_data(address, textField="answers.text", blockSize=8), tmp_path / "cache").train
