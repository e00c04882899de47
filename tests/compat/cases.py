"""Tiny runs whose published folders are tried: each a manifest for ``lmft run``, and what it must publish."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from support.forked import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 66,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 48}
DISTILBERT = {
    "model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
TRAINED = {"trainVocabSize": 300}
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
FAST = "PreTrainedTokenizerFast"


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        task: of the manifest.
        model: section of the manifest, given a folder of its own to prepare things in.
        tokenizer: class that its tokenizer_config.json must name.
        generation: settings that its generation_config.json must have.
    """

    task: str
    model: Callable[[Path], dict[str, Any]]
    tokenizer: str = FAST
    generation: dict[str, Any] = field(default_factory=dict)


def fresh(config: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    return lambda home: {"fromConfig": config, "tokenizer": TRAINED}


def with_tokenizer(config: dict[str, Any], make: Callable[[Path], Any]) -> Callable[[Path], dict[str, Any]]:
    """A fresh model, with a tokenizer given as a folder."""

    def section(home: Path) -> dict[str, Any]:
        folder = home / "tokenizer"
        make(folder)
        return {"fromConfig": config, "tokenizer": {"name": folder.as_uri()}}

    return section


def fast(folder: Path) -> None:
    """Of no class of its own, with special tokens beyond the usual ones and a template around each text."""
    trained = _words(["<s>", "</s>", "<pad>", "<user>", "<assistant>"])
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=48,
        extra_special_tokens=["<user>", "<assistant>"], chat_template="{{ messages[0]['content'] }}",
    ).save_pretrained(folder)  # fmt: skip


def of_bert(folder: Path) -> None:
    """Of a class of its own, from a vocabulary alone."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = sorted({word.strip(",.").lower() for text in TEXTS for word in text.split()})
    known = dict.fromkeys([*special, ",", ".", *letters, *(f"##{letter}" for letter in letters), *words])
    (folder / "vocab.txt").write_text("\n".join(known) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def of_gpt2(folder: Path) -> None:
    """Of GPT-2's class, as on the hub: without a padding token."""
    trained = _words(["<|endoftext|>"])
    folder.mkdir()
    trained.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "model_max_length": 48, "eos_token": "<|endoftext|>"})
    )


def of_llama(folder: Path) -> None:
    """Of Llama's class, whose two versions make the template around a text each in its own way."""
    trained = _words(["<unk>", "<s>", "</s>"])
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder.mkdir()
    trained.save(str(folder / "tokenizer.json"))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **names}))


def _words(special: list[str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    trained.decoder = decoders.ByteLevel()
    return trained


def pretrained(home: Path) -> dict[str, Any]:
    """A folder as on the hub, with settings of sampling but no do_sample, and paths of whoever saved it."""
    folder = home / "pretrained"
    fast(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.GPT2Config(**{**GPT2, **ends, "vocab_size": len(tokenizer)})
    transformers.set_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(SAMPLING | {"eos_token_id": tokenizer.eos_token_id}))
    for file, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: str(folder), "local_files_only": True}))
    return {"name": folder.as_uri()}


CASES = {
    "gpt2": Case("CausalLM", fresh(GPT2), generation={"max_length": 48}),
    "llama": Case("CausalLM", fresh({"model_type": "llama", **TINY}), generation={"max_length": 66}),
    "qwen3": Case("CausalLM", fresh({"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 2, **TINY})),
    "roberta": Case("MaskedLM", fresh({"model_type": "roberta", **TINY})),
    "bert": Case("MaskedLM", fresh({"model_type": "bert", **TINY})),
    "distilbert, text labels": Case("SequenceClassification", fresh(DISTILBERT)),
    "llama classifier": Case("SequenceClassification", fresh({"model_type": "llama", **TINY})),
    "gpt2, tokenizer folder": Case("CausalLM", with_tokenizer(GPT2, fast)),
    "gpt2, GPT2Tokenizer folder": Case("CausalLM", with_tokenizer(GPT2, of_gpt2), "GPT2Tokenizer"),
    "bert, BertTokenizer folder": Case(
        "MaskedLM", with_tokenizer({"model_type": "bert", **TINY}, of_bert), "BertTokenizer"
    ),
    "llama, LlamaTokenizer folder": Case("CausalLM", with_tokenizer({"model_type": "llama", **TINY}, of_llama)),
    "gpt2, fine-tuned": Case("CausalLM", pretrained, generation=SAMPLING | {"do_sample": True}),
}
