"""A tokenizer trained on the data: byte-level BPE, with the special tokens that the task needs."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from lmft_api.tasks import Task
from lmft_job import tasks

END_OF_TEXT = "<|endoftext|>"
_LONGEST_WORD = 4_000
"""Bytes of a word, beyond which it is cut for training the tokenizer."""


def train(texts: Iterator[list[str]], vocabulary: int, task: Task, max_positions: int | None = None) -> Any:
    """Train byte-level BPE (Sennrich et al., 2016; on bytes as in GPT-2) and wrap it for transformers.

    A causal task gets GPT-2's layout: one special token for end, padding and unknown. The other tasks get
    RoBERTa's: ``<s> text </s>``, with ``<pad>``, ``<unk>`` and ``<mask>``. The same texts give the same tokenizer.

    Args:
        texts: batches of texts.
        vocabulary: number of tokens, including special ones; a small corpus may give fewer.
        task: determines the special tokens.
        max_positions: the model's longest input, if known.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    causal = tasks.of(task).causal
    special: list[Any] = [END_OF_TEXT] if causal else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if not causal:
        special[-1] = AddedToken("<mask>", lstrip=True)  # " <mask>" is one token, as in RoBERTa
    trainer = BpeTrainer(
        vocab_size=max(vocabulary, 256 + len(special)),
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Its time grows with the square of the longest word, such as a genome or a page of Chinese without a full stop.
    # The vocabulary of shorter words is the same, and what is tokenised later is not cut.
    whole = core.pre_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence([whole, pre_tokenizers.FixedLength(_LONGEST_WORD)])
    core.train_from_iterator(texts, trainer)
    core.pre_tokenizer = whole
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    if causal:
        core.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
        names |= {"pad_token": "<pad>", "unk_token": "<unk>"}
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", core.token_to_id("<s>")), ("</s>", core.token_to_id("</s>"))],
        )
    more: dict[str, Any] = {} if max_positions is None else {"model_max_length": max_positions}
    if not causal:
        more["mask_token"] = special[-1]
    wrapped: Any = PreTrainedTokenizerFast
    return wrapped(tokenizer_object=core, model_input_names=["input_ids", "attention_mask"], **names, **more)


def fast_core(tokenizer: Any) -> Any | None:
    """The Rust core of a fast tokenizer; None for a slow one."""
    from tokenizers import Tokenizer

    core = getattr(tokenizer, "backend_tokenizer", None)
    return core if isinstance(core, Tokenizer) else None


def id_count(tokenizer: Any) -> int:
    """Number of ids of a vocabulary: the largest id + 1, not the number of tokens, since some leave gaps."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)


def identity(tokenizer: Any) -> str:
    """SHA-256 of what affects ids in a fast tokenizer: its core, without settings that every call replaces."""
    body = json.loads(tokenizer.backend_tokenizer.to_str())
    body.pop("truncation", None)
    body.pop("padding", None)
    return hashlib.sha256(json.dumps([body, tokenizer.pad_token_id], sort_keys=True).encode()).hexdigest()
