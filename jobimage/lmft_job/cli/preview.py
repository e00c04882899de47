"""``lmft preview`` and ``lmft validate --data``: the data as the model would see it, without weights and training."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from lmft_api.reasons import ExitCode
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import Settings, resolve
from lmft_api.text.shown import json_text, one_line, shown
from lmft_api.wire.report import DatasetFigures, RowSegment
from lmft_job.attempt.context import quiet_transformers
from lmft_job.cli.manifest import Wishes, read_run, shown_path
from lmft_job.data.chat import asking
from lmft_job.data.prepared import Prepared, prepare
from lmft_job.data.tokens.examples import row_segments
from lmft_job.errors import InvalidError, JobError
from lmft_job.models.build import load_config, load_tokenizer, ready_tokenizer
from lmft_job.models.config import fresh_config, position_limit
from lmft_job.models.sources.source import fetch_source
from lmft_job.observers.terminal.spinner import waiting
from lmft_job.process.transfers import Told
from lmft_job.report.formatting import count, percent, quantity
from lmft_job.report.remarks import data_remarks, of_lengths

OPEN, CLOSE = "«", "»"
"""Around what is trained on."""
_BAR = 30
_LONGEST_ROW = 4000


def preview(path: Path, rows: int, wishes: Wishes | None = None, *, as_json: bool = False) -> int:
    """Print rows as the model sees them, and the data in numbers; returns the exit code."""
    found = read_run(path, wishes)
    if found is None:
        return ExitCode.INVALID
    return told(path, found[1], lambda data: _print_json(data, rows) if as_json else _print(data, rows))


def check_data(path: Path) -> int:
    """Print what is wrong with the data of a valid manifest, or its numbers; returns the exit code."""
    found = read_run(path)
    return ExitCode.INVALID if found is None else told(path, found[1], _print_numbers)


def told(path: Path, spec: LMFineTuneSpec, tell: Any) -> int:
    """Prepare the data in a temporary folder and tell about it; returns the exit code."""
    quiet_transformers()
    try:
        with tempfile.TemporaryDirectory(prefix="lmft-preview-") as folder:
            with waiting("reading and tokenising the data") as arrived:
                data = _prepared(spec, Path(folder), arrived)
            tell(data)
    except JobError as error:
        problems = error.problems if isinstance(error, InvalidError) else [str(error)]
        print(f"{shown_path(path)}: {quantity(len(problems), 'problems')}", file=sys.stderr)
        for problem in map(one_line, problems):
            print(f"  {problem}", file=sys.stderr)
        return int(error.exit_code)
    return ExitCode.DONE


def _prepared(spec: LMFineTuneSpec, folder: Path, arrived: Told) -> Prepared:
    """The data as a run prepares it; whether the model takes packs is not tried, for its weights are not there."""
    settings = resolve(spec)
    tokenizer, limit = _tokenizer_and_limit(settings, folder, arrived)
    return prepare(
        settings, tokenizer, store=None, cache=folder / "cache", max_positions=limit, told=arrived,
        say=lambda text: None,
    )  # fmt: skip


def _tokenizer_and_limit(settings: Settings, folder: Path, arrived: Told) -> tuple[Any | None, int | None]:
    model, trust = settings.model, bool(settings.model.trust_remote_code)
    say = lambda text: None  # noqa: E731
    source = None
    if model.name is not None:
        source = fetch_source(
            model.name, folder / "model", field="spec.model.name", revision=model.revision, weights=False, told=arrived
        ).path
    given = model.tokenizer.name if model.tokenizer else None
    own = (
        fetch_source(given, folder / "tokenizer", field="spec.model.tokenizer.name", weights=False, told=arrived).path
        if given
        else None
    )
    place, field = (own, "spec.model.tokenizer.name") if own else (source, "spec.model.name")
    tokenizer = None
    if place is not None:
        loaded = load_tokenizer(place, field, trust_remote_code=trust, say=say)
        tokenizer = asking.settle(settings, ready_tokenizer(loaded, settings.task))
    if source is not None:
        config = load_config(source, "spec.model.name", trust_remote_code=trust, labels=None, say=say)
    elif tokenizer is not None:
        config = fresh_config(model.from_config or {}, tokenizer, None, None)
    else:
        positions = (model.from_config or {}).get(
            "max_position_embeddings", (model.from_config or {}).get("n_positions")
        )
        return None, positions if isinstance(positions, int) else None
    return tokenizer, position_limit(config, tokenizer)


def _print(data: Prepared, rows: int) -> None:
    for number in range(min(rows, len(data.train))):
        print(f"── training row {number + 1} " + "─" * 40)
        print("".join(_marked(segment) for segment in _row(data, number)))
    _print_numbers(data)


def _print_json(data: Prepared, rows: int) -> None:
    shown_rows = [
        [segment.model_dump(mode="json") for segment in _row(data, number)]
        for number in range(min(rows, len(data.train)))
    ]
    figures = {to_camel(name): value for name, value in data.figures.model_dump(mode="json").items()}
    remarks = list(data_remarks(data.figures))
    print(json_text({"rows": shown_rows, "data": figures, "remarks": remarks}))


def _row(data: Prepared, number: int) -> list[RowSegment]:
    """A training row in runs of tokens that are trained on or not."""
    return row_segments(data.train, data.tokenizer, data.labels, number, _LONGEST_ROW)


def _marked(segment: RowSegment) -> str:
    text = shown(segment.text)
    return f"{OPEN}{text}{CLOSE}" if segment.trained else text


def _print_numbers(data: Prepared) -> None:
    figures = data.figures
    tokens = figures.train_tokens + (figures.eval_tokens or 0)
    print(
        f"{quantity(figures.train_rows, 'rows')} to train on, {count(figures.eval_rows)} held out, "
        f"{quantity(tokens, 'tokens')}"
    )
    chats = figures.conversations
    if chats is not None:
        trained = chats.train_trained_tokens + chats.eval_trained_tokens
        print(
            f"{quantity(trained, 'tokens')} trained on ({percent(trained / max(1, tokens))}), "
            f"{quantity(chats.dropped, 'rows')} dropped, {count(chats.truncated_rows)} truncated"
            + (f", {quantity(chats.packs, 'packs')} of at most {chats.max_length}" if chats.packs is not None else "")
        )
    _print_lengths(figures)
    for remark in data_remarks(figures):
        print(one_line(remark))


def _print_lengths(figures: DatasetFigures) -> None:
    """Training texts by length, with a bar for each class."""
    classes = figures.lengths.histogram if figures.lengths else []
    most = max((texts for _, texts in classes), default=0)
    above = 0
    for longest, texts in classes:
        label = f"> {count(above)}" if longest is None else f"≤ {count(longest)}"
        limit = "  ← limit" if figures.lengths and longest == figures.lengths.limit else ""
        print(f"{label:>10} tokens  {'█' * round(_BAR * texts / max(1, most))} {count(texts)}{limit}")
        above = longest or above
    if sentence := of_lengths(figures):
        print(sentence)
