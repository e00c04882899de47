"""A table of words and their ids, so that a word is tokenised once and looked up from then on.

Text repeats its words (Zipf's law), and a tokenizer that splits text at white space gives a word the same ids
wherever it occurs. So the Rust core is only asked for new words. This holds for two families of tokenizers, recognised
by their ``tokenizer.json``; for any other there is no table, and the core gets whole texts:

- ``ByteLevel`` with GPT-2's pattern (GPT-2, RoBERTa, BART, OPT, GPT-NeoX and what is trained here): no alternative of
  the pattern matches across the start of a run of white space, and its one lookahead does not reach beyond the run
  and the character after it;
- ``BertPreTokenizer`` (BERT, DistilBERT): every space, tab and line break ends a word.

Patterns that join line breaks to the preceding punctuation (Llama 3, Qwen) are not supported.
"""

import json
import re
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from lmft_job.data.rows import Ids
from lmft_job.data.tokens.core import encode_batch

WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, for a character class."""
BLANKS = " \t\n\r"
"""Control characters that BERT's normalizer keeps."""
MOST_WORDS = 300_000
MOST_IDS = 3_000_000
"""The table is cleared beyond these limits: about 50 MiB."""
_START, _END = object(), object()


class WordTable:
    """Ids of words, for one tokenizer."""

    def __init__(self, core: Any, separators: str, special: list[str], before: list[int], after: list[int]) -> None:
        self._core = core
        # A word and the white space before it; or white space at the end of a text.
        self._split = re.compile(f"[{separators}]*[^{separators}]+|[{separators}]+").findall
        self._special, self._before, self._after = special, before, after
        self._clear()

    @classmethod
    def of(cls, core: Any) -> "WordTable | None":
        """The table for a fast tokenizer's core; None if a word's ids depend on its context."""
        layout = json.loads(core.to_str())
        separators = _separators(layout)
        added = layout["added_tokens"]
        if separators is None or layout["model"].get("dropout"):
            return None
        if layout["normalizer"] is not None and any(token["normalized"] for token in added):
            return None  # an added token may then match in a text that does not contain its exact characters
        plain, whole = (core.encode("a", add_special_tokens=wanted).ids for wanted in (False, True))
        start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), None)
        if start is None:
            return None
        special = [token["content"] for token in added]
        return cls(core, separators, special, whole[:start], whole[start + len(plain) :])

    def encode(self, texts: list[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The ids of the given texts, concatenated (uint32), with special tokens, and the length of each."""
        words: list[Any] = []
        ends = np.empty(len(texts) + 1, np.int64)
        ends[0] = 0
        for row, text in enumerate(texts):
            words.append(_START)
            # A text that contains an added token, such as <|endoftext|>, counts as one word; the core splits it.
            words += [text] if any(token in text for token in self._special) else self._split(text)
            words.append(_END)
            ends[row + 1] = len(words)
        if len(self._known) > MOST_WORDS or len(self._ids) > MOST_IDS:
            self._clear()
        numbers = np.fromiter(map(self._known.__getitem__, words), np.int64, len(words))
        self._learn()
        bounds, flat = np.frombuffer(self._bounds, np.int64), np.frombuffer(self._ids, np.uint32)
        first = bounds[numbers]
        lengths = bounds[numbers + 1] - first
        stops = np.zeros(len(words) + 1, np.int64)
        np.cumsum(lengths, out=stops[1:])
        # Each word's ids begin at `first` in the table and at its entry of `stops` in the result.
        places = np.repeat(first - stops[:-1], lengths)
        places += np.arange(len(places))
        return flat[places], np.diff(stops[ends])

    def _clear(self) -> None:
        self._known = _Numbers()
        self._ids = array("I", [*self._before, *self._after])
        self._bounds = array("q", [0, len(self._before), len(self._ids)])
        self._known |= {_START: 0, _END: 1}

    def _learn(self) -> None:
        fresh, self._known.fresh = self._known.fresh, []
        for encoding in encode_batch(self._core, fresh, special=False):
            self._ids.fromlist(encoding.ids)
            self._bounds.append(len(self._ids))


class _Numbers(dict[Any, int]):
    """Assigns numbers to words in order of first use."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[str] = []

    def __missing__(self, word: str) -> int:
        self.fresh.append(word)
        number = self[word] = len(self)
        return number


def _separators(layout: dict[str, Any]) -> str | None:
    normalizer = (layout["normalizer"] or {}).get("type")
    splitter = layout["pre_tokenizer"] or {}
    if splitter.get("type") == "BertPreTokenizer" and normalizer in (None, "BertNormalizer"):
        return BLANKS
    words = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
    if words and not splitter["add_prefix_space"] and normalizer in (None, "NFC"):
        return WHITE_SPACE
    return None
