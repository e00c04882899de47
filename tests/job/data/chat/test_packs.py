"""Packs of conversations: deterministic, full, and such that none sees another."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.chats import drawn_chat
from support.data_helpers import json_data, prepare_toy, write_lines

from lmft_job.data.chat.packs import best_fit
from lmft_job.data.chat.rows import ConversationRows
from lmft_job.data.isolated.collate import PadShared, real_tokens
from lmft_job.data.isolated.trial import keeps_apart
from lmft_job.data.prepared import Prepared
from lmft_job.errors import InvalidError
from lmft_job.tasks.base import IGNORED

LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
APART = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 16, "num_key_value_heads": 1},
    "gemma3_text": {**LLAMA, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": 4},
    "mistral": {**LLAMA, "sliding_window": 8, "num_key_value_heads": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
}
NOT_APART: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
}


def made(kind: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=500, **settings)
    config.use_cache = False  # as in training
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def prepared(folder: Path, **more: Any) -> Prepared:
    draw = random.Random(5)
    rows = [{"messages": drawn_chat(draw)} for _ in range(80)]
    address = write_lines(folder / "a.jsonl", *rows)
    packs = more.pop("packs", True)
    dataset = {"messagesField": "messages", "chatTemplate": {"name": "ChatML"}, "maxLength": 256, **more}
    return prepare_toy(json_data(address, **dataset), folder / "cache", packs=packs)


@pytest.mark.parametrize("seed", range(20))
def test_packs_hold_every_row_once_within_their_length(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randrange(1, 101) for _ in range(draw.randrange(1, 300))]

    packs = best_fit(lengths, 100)

    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= 100 for pack in packs)
    # no two packs would fit into one, and best fit decreasing needs at most 11/9 of the fewest packs, and one
    sizes = sorted(sum(lengths[row] for row in pack) for pack in packs)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > 100
    assert len(packs) <= 11 / 9 * -(-sum(lengths) // 100) + 1 or max(lengths) > 50
    assert packs == best_fit(lengths, 100)


@pytest.mark.parametrize("kind", APART)
def test_the_logits_of_a_conversation_in_a_pack_are_those_of_it_alone(kind: str, tmp_path: Path) -> None:
    data, model = prepared(tmp_path), made(kind, APART[kind])
    assert isinstance(data.train, ConversationRows)
    items = [item for item in (data.train[index] for index in range(len(data.train))) if len(item["lengths"]) > 1][:3]

    batch = data.collator(items)
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for row, item in enumerate(items):
            ends = np.cumsum(item["lengths"]).tolist()
            for start, end in zip([0, *ends], ends, strict=False):
                alone = model(input_ids=torch.from_numpy(item["input_ids"][start:end])[None]).logits[0]

                assert torch.allclose(together[row, start:end], alone, atol=1e-4)


@pytest.mark.parametrize("kind", [*APART, *NOT_APART])
def test_a_model_is_tried_before_conversations_share_its_rows(kind: str) -> None:
    model = made(kind, {**APART, **NOT_APART}[kind])

    assert keeps_apart(model, torch.arange(10, 400), 256) == (kind in APART)


def test_training_rows_are_packed_and_held_out_rows_are_not(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    loose = prepared(tmp_path, packs=False)
    plain = prepared(tmp_path, packing="None")

    packs = [data.train[index] for index in range(len(data.train))]
    assert max(len(item["lengths"]) for item in packs) > 1
    assert (
        sum(len(item["lengths"]) for item in packs) == data.figures.train_rows == len(loose.train) == len(plain.train)
    )
    assert all(len(data.held_out[index]["lengths"]) == 1 for index in range(len(data.held_out)))
    figures = data.figures.conversations
    assert figures is not None
    assert figures.packs == len(data.train)
    assert figures.train_trained_tokens == sum(int((item["labels"] != IGNORED).sum()) for item in packs)
    assert loose.figures.conversations is not None
    assert (loose.figures.conversations.packs, loose.figures.conversations.kept_apart) == (None, False)
    assert len({one.fingerprint for one in (data, loose)}) == 2


def test_the_first_token_of_a_conversation_is_no_target_of_the_one_before_it(tmp_path: Path) -> None:
    data = prepared(tmp_path, trainOn="Everything")

    for index in range(len(data.train)):
        item = data.train[index]
        starts = np.cumsum([0, *item["lengths"][:-1]])
        assert (item["labels"][starts] == IGNORED).all()
        assert (np.delete(item["labels"], starts) == np.delete(item["input_ids"], starts)).all()


def test_a_batch_of_packs_counts_its_tokens_without_padding(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    items = [data.train[index] for index in range(4)]

    batch = PadShared(0)(items)

    assert int(real_tokens(batch["position_ids"])) == sum(len(item["input_ids"]) for item in items)
    assert batch["input_ids"].shape[1] == max(len(item["input_ids"]) for item in items)


def lengths_of(data: Prepared) -> list[int]:
    return sorted(len(rows[index]["input_ids"]) for rows in (data.train, data.held_out) for index in range(len(rows)))


def test_long_conversations_are_dropped_cut_or_refused(tmp_path: Path) -> None:
    whole = prepared(tmp_path, packing="None")
    long = [length for length in lengths_of(whole) if length > 64]
    assert long

    dropped = prepared(tmp_path, packing="None", maxLength=64)
    assert dropped.figures.conversations is not None
    assert dropped.figures.conversations.long_rows_dropped == len(long)
    assert lengths_of(dropped) == [length for length in lengths_of(whole) if length <= 64]

    with pytest.raises(InvalidError) as caught:
        prepared(tmp_path, packing="None", maxLength=64, longRows="Refuse")
    assert "tokens, more than 64; shorten it, set a larger maxLength, or set longRows" in caught.value.problems[0]

    cut = prepared(tmp_path, packing="None", maxLength=64, longRows="Truncate")
    figures = cut.figures.conversations
    assert figures is not None
    assert figures.truncated_rows == len(long)
    assert max(lengths_of(cut)) <= 64
    assert cut.figures.train_rows + cut.figures.eval_rows + figures.untrained_rows == 80
    # whole turns are cut first: every answer but those cut within ends with its token
    end = cut.tokenizer.convert_tokens_to_ids("<|im_end|>")
    open_rows = 0
    for rows in (cut.train, cut.held_out):
        for index in range(len(rows)):
            labels = rows[index]["labels"]
            open_rows += int(labels[labels != IGNORED][-1] != end)
    assert open_rows + figures.untrained_rows >= figures.cut_answers >= open_rows
