"""Generated text that looks like language to a tokenizer: words by Zipf's law, sentences, paragraphs; seeded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_LETTERS = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))


def words(count: int, seed: int = 0) -> list[str]:
    """Distinct pseudo-words, common ones short."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, len(_LETTERS) + 1)
    found: dict[str, None] = {}
    while len(found) < count:
        length = 2 + int(rng.poisson(1.5 + 3 * min(1.0, len(found) / 1000)))
        found["".join(rng.choice(_LETTERS, length, p=weight / weight.sum()))] = None
    return list(found)


def rows(count: int, *, seed: int = 0, vocabulary: int = 5000, mean_words: int = 60) -> Iterator[dict[str, Any]]:
    """Rows shaped like ELI5: an id and a list of paragraphs in ``answers.text``."""
    rng = np.random.default_rng(seed)
    known = np.array(words(vocabulary, seed))
    chance = 1 / np.arange(1, vocabulary + 1)
    chance /= chance.sum()
    for number in range(count):
        paragraphs = []
        for _ in range(1 + number % 3):
            chosen = known[rng.choice(vocabulary, max(3, int(rng.poisson(mean_words))), p=chance)]
            paragraphs.append(" ".join(chosen).capitalize() + ".")
        yield {"id": f"q{number}", "answers": {"text": paragraphs}}


def write_json(path: Path, count: int, **options: Any) -> Path:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows(count, **options):
            file.write(json.dumps(row) + "\n")
    return path
