"""Texts to ids in one pass, straight into flat arrays.

Packing is the tutorials' ``group_texts`` over the whole corpus at once: concatenate, cut into blocks, drop the
remainder. (The tutorial applies it to batches of 1,000 texts and drops a remainder in each.)
"""

import itertools
import os
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lmft_job.data.rows import BlockWriter, Ids
from lmft_job.data.tokens.core import encode_batch
from lmft_job.data.tokens.word_table import WordTable

Check = Callable[[], None]
Lengths = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """A batch of texts as ids.

    Attributes:
        ids: ids of the texts, concatenated (uint32).
        lengths: length of each text after truncation.
        whole: length of each text before truncation.
    """

    ids: Ids
    lengths: Lengths
    whole: Lengths


def encoded(
    tokenizer: Any, batches: Iterator[list[str]], check: Check, max_length: int | None = None
) -> Iterator[Encoded]:
    """Ids of batches of texts, with special tokens as a call of the tokenizer would add them.

    Words are looked up in a table of known words (:mod:`lmft_job.data.tokens.word_table`) if the tokenizer allows it.
    Otherwise, and for texts to be truncated, the tokenizer's Rust core gets whole texts; it is used directly: no
    attention masks, offsets or lists of lists are made, and no warning that a text is longer than the model
    (packing cuts it intentionally).

    Args:
        tokenizer: a fast tokenizer of transformers.
        batches: texts.
        check: called between batches; may raise.
        max_length: truncate each text to this many tokens.
    """
    # Intentional: the Rust core uses all cores while this thread waits; nothing is forked meanwhile.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    core = tokenizer.backend_tokenizer
    core.no_padding()
    if max_length is None:
        core.no_truncation()
        table = WordTable.of(core)
    else:
        core.enable_truncation(max_length, direction=tokenizer.truncation_side)
        table = None
    if table is None:
        yield from _by_core(core, batches, check)
        return
    for batch in batches:
        check()
        ids, lengths = table.encode(batch)
        yield Encoded(ids, lengths, lengths)


def _by_core(core: Any, batches: Iterator[list[str]], check: Check) -> Iterator[Encoded]:
    limit = (core.truncation or {}).get("max_length")
    added = core.num_special_tokens_to_add(False)
    with ThreadPoolExecutor(1, "tokenize") as pool:
        # One batch is encoded (without the GIL) while the ids of the previous one are copied out.
        ahead = next(batches, None)
        running = pool.submit(encode_batch, core, ahead) if ahead else None
        while running is not None:
            check()
            ahead = next(batches, None)
            done = running.result()
            running = pool.submit(encode_batch, core, ahead) if ahead else None
            ids, lengths = _flatten(done)
            yield Encoded(ids, lengths, lengths if limit is None else _uncut(done, lengths, limit, added))


def _uncut(encodings: list[Any], lengths: Lengths, limit: int, added: int) -> Lengths:
    """The lengths before truncation: each encoding keeps the truncated pieces, every one with special tokens."""
    whole = lengths.copy()
    for row in np.flatnonzero(lengths == limit).tolist():
        whole[row] += sum(len(piece.ids) - added for piece in encodings[row].overflowing)
    return whole


def _flatten(encodings: list[Any]) -> tuple[Ids, Lengths]:
    flat = array("I")
    lengths = np.empty(len(encodings), np.int64)
    for row, encoding in enumerate(encodings):
        before = len(flat)
        flat.fromlist(encoding.ids)  # the fastest way out of a list of ints: 27 ns a token, numpy takes 40 to 60
        lengths[row] = len(flat) - before
    return np.frombuffer(flat, np.uint32), lengths


def pack(tokenizer: Any, batches: Iterator[list[str]], writer: BlockWriter, check: Check) -> Lengths:
    """Tokenise texts and write them as blocks; returns the length of each text in tokens."""
    lengths = []
    for ids, counts, _ in encoded(tokenizer, batches, check):
        writer.add(ids, counts)
        lengths.append(counts)
    return np.concatenate(lengths) if lengths else np.empty(0, np.int64)


def split_ids(ids: Ids, lengths: Lengths) -> Iterator[Ids]:
    """The ids of each text of a batch."""
    ends = np.cumsum(lengths)
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        yield ids[start:end]
