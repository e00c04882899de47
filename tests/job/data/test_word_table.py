"""Ids looked up word by word are those that the tokenizer itself gives for the whole text."""

import random
import unicodedata
from functools import cache
from typing import Any

import pytest
from support.corpora import rows
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lmft_api.tasks import Task
from lmft_job.data.tokens import word_table
from lmft_job.data.tokens.word_table import WordTable
from lmft_job.models import tokenizers

CORPUS = [" ".join(row["answers"]["text"]) for row in rows(60, vocabulary=300, mean_words=15)]
PIECES = [
    *[" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u180e"],
    *["\u2003", "\u200b", "\u2028", "\u3000", "\ufeff", "the", "The", "don't", "we'LL", "'s", "'", "x's", "12", "3.14"],
    *["½", "²", "!", "?!", "—", "\u0301", " \u0308", "e\u0301", "é", "Å", "Ω", "İ", "ς", "中文", "日", "한국어", "ไทย"],
    *["😀", "\u200d", "\x00", "\x7f", "\ufffd", "\U0001d7d8", "\U000e0020", "a_b", "_", "<", "|>", "endoftext"],
    *["<|endoftext|>", "<mask>", "<s>", "[MASK]", "[SEP]"],
]
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@cache
def _trained(task: str) -> str:
    # Trained on texts of the same awkward pieces, so that a word cut in the wrong place has other ids.
    return tokenizers.train(iter([strange_texts(2000, seed=2)]), 4000, Task(task)).backend_tokenizer.to_str()


def trained(task: str) -> Tokenizer:
    return Tokenizer.from_str(_trained(task))


def composed() -> Tokenizer:
    """As GPT-NeoX's: canonical composition before bytes."""
    core = trained("CausalLM")
    core.normalizer = normalizers.NFC()
    core.add_special_tokens(["<|padding|>"])
    return core


def bert(**options: Any) -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(**options)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator([*CORPUS, *PIECES], trainers.WordPieceTrainer(vocab_size=600, special_tokens=special))
    from tokenizers.processors import BertProcessing

    core.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return core


FAMILIES = {
    "gpt2": lambda: trained("CausalLM"),
    "roberta": lambda: trained("MaskedLM"),
    "neox": composed,
    "bert": bert,
    "bert cased": lambda: bert(lowercase=False, strip_accents=False, handle_chinese_chars=False),
}


def strange_texts(count: int, seed: int) -> list[str]:
    """Texts of awkward pieces, and of code points from all of Unicode."""
    chance = random.Random(seed)
    anywhere = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) != "Cs"]
    mixed = ["".join(chance.choices(PIECES, k=chance.randint(1, 20))) for _ in range(count)]
    wild = ["".join(chance.choices(anywhere[:0x3000] + PIECES * 20, k=chance.randint(1, 30))) for _ in range(count)]
    return [*mixed, *wild, *("a" + char * 2 + " b " + char + "c" for char in anywhere[:0x3100]), *CORPUS, "", " ", "\n"]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_equal_those_of_whole_texts(family: str) -> None:
    core = FAMILIES[family]()
    table = WordTable.of(core)
    assert table is not None
    texts = strange_texts(2000, seed=1)

    flat, lengths = table.encode(texts)
    again, _ = table.encode(texts)

    ends = lengths.cumsum().tolist()
    for text, expected, start, end in zip(texts, core.encode_batch(texts), [0, *ends], ends, strict=False):
        assert flat[start:end].tolist() == expected.ids, repr(text)
    assert again.tolist() == flat.tolist()


def test_a_full_table_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "MOST_WORDS", 50)
    core = trained("MaskedLM")
    table = WordTable.of(core)
    assert table is not None

    found = [table.encode([text])[0].tolist() for text in CORPUS]

    assert found == [encoding.ids for encoding in core.encode_batch(CORPUS)]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        ("pre_tokenizer", pre_tokenizers.Metaspace()),
        ("pre_tokenizer", pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])),
        ("pre_tokenizer", None),
        ("normalizer", normalizers.Replace(" ", "_")),
        ("model", models.BPE({"a": 0}, [], dropout=0.1)),
    ],
    ids=["prefix space", "bytes without words", "metaspace", "llama 3", "no splitter", "replacing", "dropout"],
)  # fmt: skip
def test_tokenizers_whose_words_do_not_stand_for_themselves_have_no_table(part: str, value: Any) -> None:
    core = trained("CausalLM")
    setattr(core, part, value)

    assert WordTable.of(core) is None
