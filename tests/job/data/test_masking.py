"""Masks: BERT's shares, never a special token, and a pure function of seed, epoch and row."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmft_api.tasks import Task
from lmft_job.data.masking import IGNORED, MaskedBlocks, Masker
from lmft_job.data.rows import BlockRows, BlockWriter, EpochSampler, PadRows, stack_blocks
from lmft_job.models import tokenizers

MASK, VOCABULARY = 4, 1000


def masker(seed: int = 42, probability: float = 0.15) -> Masker:
    return Masker(seed, probability, VOCABULARY, MASK, [0, 1, 2, 3, 4])


def blocks_at(path: Path, count: int = 64, size: int = 128) -> Path:
    with BlockWriter(path, size, VOCABULARY) as writer:
        writer.add(np.random.default_rng(0).integers(0, VOCABULARY, count * size).astype(np.uint32))
    return path


def test_the_shares_are_those_of_bert() -> None:
    ids = np.random.default_rng(1).integers(5, VOCABULARY, 400_000)

    inputs, labels = masker()(ids, 0, 0)

    chosen = labels != IGNORED
    assert abs(chosen.mean() - 0.15) < 0.002
    assert abs((inputs[chosen] == MASK).mean() - 0.8) < 0.005
    assert abs((inputs[chosen] == ids[chosen]).mean() - 0.1) < 0.005
    replaced = inputs[chosen & (inputs != MASK) & (inputs != ids)]
    assert replaced.min() < 50
    assert replaced.max() > 950


def test_labels_are_the_original_where_chosen_and_the_rest_is_untouched() -> None:
    ids = np.random.default_rng(2).integers(0, VOCABULARY, 5000)

    inputs, labels = masker()(ids, 3, 9)

    chosen = labels != IGNORED
    assert (labels[chosen] == ids[chosen]).all()
    assert (inputs[~chosen] == ids[~chosen]).all()
    assert not np.isin(ids[chosen], [0, 1, 2, 3, 4]).any()


def test_masks_depend_on_seed_epoch_and_row_alone() -> None:
    ids = np.random.default_rng(3).integers(5, VOCABULARY, 500)
    first = masker()(ids, 1, 7)[1]

    np.random.seed(0)
    torch.manual_seed(9)
    masker()(ids, 5, 5)

    assert (masker()(ids, 1, 7)[1] == first).all()
    for other in (masker(43)(ids, 1, 7), masker()(ids, 2, 7), masker()(ids, 1, 8)):
        assert (other[1] != first).any()


def test_every_probability_is_kept() -> None:
    ids = np.random.default_rng(4).integers(5, VOCABULARY, 100_000)

    for probability in (0.01, 0.3, 0.9):
        assert abs((masker(probability=probability)(ids, 0, 0)[1] != IGNORED).mean() - probability) < 0.01


def test_training_masks_change_with_the_epoch_that_the_index_carries(tmp_path: Path) -> None:
    rows = MaskedBlocks(blocks_at(tmp_path / "b.arrow"), masker(), fixed=False)

    first, second = rows[3], rows[3 + len(rows)]

    assert (first["labels"] != second["labels"]).any()
    assert (rows[3]["input_ids"] == first["input_ids"]).all()


def test_evaluation_masks_are_the_same_at_every_reading(tmp_path: Path) -> None:
    path = blocks_at(tmp_path / "b.arrow")
    rows = MaskedBlocks(path, masker(), fixed=True)

    for row in range(len(rows)):
        again = MaskedBlocks(path, masker(), fixed=True)[row]
        assert (again["input_ids"] == rows[row + 5 * len(rows)]["input_ids"]).all()
        assert (again["labels"] == rows[row]["labels"]).all()


def test_a_resumed_loader_sees_what_an_uninterrupted_one_sees(tmp_path: Path) -> None:
    rows = MaskedBlocks(blocks_at(tmp_path / "b.arrow"), masker(), fixed=False)

    def batches(first_epoch: int, skip: int, draws: int) -> list[Any]:
        torch.manual_seed(draws)
        sampler, seen = EpochSampler(len(rows), 42), []
        for epoch in range(first_epoch, 3):
            sampler.set_epoch(epoch)
            loader = torch.utils.data.DataLoader(rows, batch_size=8, sampler=sampler, collate_fn=stack_blocks)
            seen += [batch for number, batch in enumerate(loader) if epoch > first_epoch or number >= skip]
        return seen

    whole, resumed = batches(0, 0, 1), batches(1, 3, 2)

    assert len(resumed) == 2 * 8 - 3
    for expected, seen in zip(whole[8 + 3 :], resumed, strict=True):
        assert torch.equal(expected["input_ids"], seen["input_ids"])
        assert torch.equal(expected["labels"], seen["labels"])


def test_the_order_is_that_of_a_plain_trainer(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    rows = BlockRows(blocks_at(tmp_path / "b.arrow", count=12, size=8))
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=VOCABULARY, n_positions=8))
    arguments = TrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=4, seed=7, report_to=[], use_cpu=True
    )
    plain = Trainer(model, arguments, train_dataset=rows, data_collator=stack_blocks)
    loader = plain.get_train_dataloader()
    sampler = EpochSampler(len(rows), 7)

    for epoch in (0, 1, 4):
        loader.set_epoch(epoch)
        sampler.set_epoch(epoch)
        theirs = torch.cat([batch["input_ids"] for batch in loader])
        ours = torch.tensor(np.stack([rows[index]["input_ids"] for index in sampler]))
        assert torch.equal(theirs, ours)


def test_padding_is_that_of_the_guides_collator() -> None:
    from transformers import DataCollatorWithPadding

    tokenizer = tokenizers.train(iter([["some words to learn from"]]), 300, Task.SEQUENCE_CLASSIFICATION)
    items = [
        {"input_ids": tokenizer(text)["input_ids"], "labels": number}
        for number, text in enumerate(["a b", "some words"])
    ]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        theirs = DataCollatorWithPadding(tokenizer)([dict(item) for item in items])

        ours = PadRows(tokenizer.pad_token_id, left=side == "left")(items)

        assert {key: value.tolist() for key, value in ours.items()} == {key: theirs[key].tolist() for key in theirs}
