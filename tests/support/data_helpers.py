"""Settings and preparation in one call, for the tests of the data path."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import Settings, resolve
from lmft_job.data.prepared import Prepared, prepare
from lmft_job.storage import Store


def settings_of(dataset: dict[str, Any], task: str = "CausalLM", seed: int = 42, vocabulary: int = 400) -> Settings:
    """Resolved settings of a small run that trains its tokenizer."""
    kind = {"CausalLM": "gpt2", "MaskedLM": "roberta", "SequenceClassification": "distilbert"}[task]
    model = {"fromConfig": {"model_type": kind}, "tokenizer": {"trainVocabSize": vocabulary}}
    manifest = {"task": task, "model": model, "dataset": dataset, "training": {"seed": seed}}
    return resolve(LMFineTuneSpec.model_validate_json(json.dumps(manifest)))


def prepare_toy(
    dataset: dict[str, Any],
    cache: Path,
    task: str = "CausalLM",
    *,
    seed: int = 42,
    tokenizer: Any | None = None,
    store: Store | None = None,
    max_positions: int | None = None,
    vocabulary: int = 400,
    model_labels: Sequence[str] = (),
    day: str | None = None,
    packs: bool = True,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda words: None,
) -> Prepared:
    """Prepare a data set the way the recipe does."""
    settings = settings_of(dataset, task, seed, vocabulary)
    return prepare(
        settings,
        tokenizer,
        store=store,
        cache=cache,
        max_positions=max_positions,
        model_labels=model_labels,
        day=day,
        packs=packs,
        check=check,
        say=say,
    )


def write_lines(path: Path, *rows: Any) -> str:
    """JSON lines in a file; its address."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"file://{path}"


def json_data(*addresses: str, **more: Any) -> dict[str, Any]:
    """``spec.dataset`` for JSON files."""
    return {"files": list(addresses), "format": "json", **more}
