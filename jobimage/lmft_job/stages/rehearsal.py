"""Tries a model on a few tokens before data is prepared for it, so that what it cannot do is reported early.

Configurations and signatures do not show it: some heads score each token against itself, some see the tokens to
predict, some need more than text, and positions begin at 0, 1, or after the padding id. Nothing here uses the global
random state, changes a weight or keeps a gradient.
"""

from dataclasses import dataclass
from typing import Any

import torch

from lmft_api.spec.resolved import Settings
from lmft_api.text.wording import first_line
from lmft_job import tasks
from lmft_job.data.isolated.trial import keeps_apart
from lmft_job.data.rows import PadRows
from lmft_job.errors import Findings, InvalidError
from lmft_job.models.config import position_limit, positions_of, text_part
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import NOTICEABLE, require_next_token, trying
from lmft_job.tasks.base import IGNORED
from lmft_job.training.batch import is_shortage

_TOKENS = 12
_CHEAP = 10**10
"""Maximum product of weights and tokens in a pass, for a short time on a CPU."""
_WORDS = "a b c d e f g h i j k l m n o p "
_LENGTHS = (13, 47, 61)
"""Row lengths in tokens: none is a multiple of another, nor of the models' pooling sizes."""


@dataclass(frozen=True)
class Rehearsed:
    """What the rehearsal found.

    Attributes:
        limit: tokens that fit into one input; None for no limit.
        packs: texts that share a row do not see each other; not tried where none do.
        one_end: rows must have the same number of end-of-text tokens: the head reads the state at the last one.
    """

    limit: int | None
    one_end: bool = False
    packs: bool = True


def rehearse(model: Any, tokenizer: Any, settings: Settings, field: str) -> Rehearsed:
    """Try a model, on the CPU, with everything that a run does with it.

    Args:
        model: in FP32.
        tokenizer: the run's, or one like it.
        settings: settings of the run.
        field: manifest field to name if the model fails.

    Raises:
        InvalidError: every problem found.
    """
    task, findings = tasks.of(settings.task), Findings()
    kind = model.config.model_type
    if settings.training.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        findings.problems.append(
            f"spec.training.gradientCheckpointing: a model of type {kind} does not support it; remove it"
        )
    ordinary = _ordinary_ids(tokenizer)
    limit = _position_limit(model, tokenizer, ordinary)
    one_end = False
    try:
        if task.packed:
            _try_blocks(model, ordinary, settings, limit)
        else:
            one_end = _try_rows(model, tokenizer, settings, limit)
    except InvalidError as error:
        findings.problems += error.problems
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_shortage(error)):
            raise
        findings.problems.append(
            f"{field}: a trial with a few tokens failed: {kind} does not take them for {settings.task}, or its "
            f"settings do not fit together ({_described(error)})"
        )
    if not findings.problems and task.causal and settings.sample.shown:
        findings.of(lambda: _try_answer(model, ordinary, tokenizer, settings))
    packs = True
    if not findings.problems and (settings.dataset.has_conversations or settings.dataset.isolate_documents):
        packs = keeps_apart(model, ordinary, limit)
    if settings.dataset.isolate_documents and not packs:
        findings.problems.append(
            f"spec.dataset.isolateDocuments: a model of type {kind} does not keep documents apart that share a block: "
            "tried on a few tokens, the second one's logits differ from those of it alone. Remove it, or choose a "
            "decoder whose attention reads positions, such as gpt2 or llama"
        )
    if findings.problems:
        raise InvalidError(findings.problems)
    return Rehearsed(limit, one_end, packs)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _cpu(model: Any) -> Arithmetic:
    return Arithmetic(next(model.parameters()).device)


def _ordinary_ids(tokenizer: Any) -> torch.Tensor:
    """Ids that can occur in text, in order: special ids have another meaning in some models."""
    special = set(tokenizer.all_special_ids)
    return torch.tensor(sorted(set(tokenizer.get_vocab().values()) - special) or sorted(special))


def _some_ids(ordinary: torch.Tensor, length: int) -> torch.Tensor:
    chosen = torch.randint(len(ordinary), (1, length), generator=torch.Generator().manual_seed(0))
    return ordinary[chosen]


def _position_limit(model: Any, tokenizer: Any, ordinary: torch.Tensor) -> int | None:
    """Tokens that fit: by the configuration, and by the rows of the position table from the first position on.

    RoBERTa and related models number positions from the padding id + 1, which lowers the limit by as much.
    """
    limit = position_limit(model.config, tokenizer)
    if positions_of(model.config) is None:
        return limit
    length = min(_TOKENS, limit or _TOKENS) // 2 + 1
    limits = [] if limit is None else [limit]
    counted = torch.arange(length)

    def look(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        for ids in (*given, *named.values()):
            # Some models pad their input, so there may be more position ids.
            if isinstance(ids, torch.Tensor) and not ids.is_floating_point() and ids.ndim and ids.shape[-1] >= length:
                row = ids.reshape(-1, ids.shape[-1])[0, :length]
                if torch.equal(row - row[0], counted):
                    limits.append(module.weight.shape[0] - int(row[0]))

    inputs = _descending(ordinary, length)
    # Not by class: I-BERT has its own class.
    tables = [one for one in model.modules() if getattr(getattr(one, "weight", None), "ndim", 0) == 2]
    hooks = [table.register_forward_pre_hook(look, with_kwargs=True) for table in tables]
    try:
        with trying(model, _cpu(model)):
            model(input_ids=inputs)
    except Exception:  # noqa: BLE001 - any exception of the model's code is raised again shortly, with labels
        return limit
    finally:
        for hook in hooks:
            hook.remove()
    return min(limits)


def _descending(ordinary: torch.Tensor, length: int) -> torch.Tensor:
    """Ids that cannot be mistaken for positions."""
    return ordinary[:length].flip(0).repeat(length)[None, :length]


def _try_blocks(model: Any, ordinary: torch.Tensor, settings: Settings, limit: int | None) -> None:
    """Packed blocks, as language models are trained on.

    Raises:
        InvalidError: the head does not learn the task.
    """
    task = tasks.of(settings.task)
    if task.causal:
        require_next_token(model, task.name, limit, ordinary)
    size = min(settings.dataset.block_size or _TOKENS, limit or _TOKENS)
    weights = sum(weight.numel() for weight in model.parameters())
    length = size if size * weights <= _CHEAP else min(size, _TOKENS)
    ids = _some_ids(ordinary, length)
    other = ids.roll(1, dims=1)
    if not task.causal:
        ids, other = (torch.where(torch.arange(length) % 3 == 1, labels, IGNORED) for labels in (ids, other))
    inputs = _some_ids(ordinary, length)
    with trying(model, _cpu(model)):
        outputs, otherwise = (model(input_ids=inputs, labels=labels) for labels in (ids, other))
        _require_outputs(outputs, (1, length))
        if not torch.allclose(outputs.logits, otherwise.logits, atol=1e-5):
            raise InvalidError(
                [task.misfit(model.config.model_type, "its decoder is given the tokens that it is to predict")]
            )
        model.train()
        model(input_ids=inputs, labels=ids)


def _require_outputs(outputs: Any, shape: tuple[int, ...]) -> None:
    if outputs.loss is None or outputs.loss.ndim:
        raise ValueError("it returns no loss for labels")
    if outputs.logits.shape[: len(shape)] != shape:
        raise ValueError(f"its logits have the shape {tuple(outputs.logits.shape)} for inputs of {shape}")


def _try_rows(model: Any, tokenizer: Any, settings: Settings, limit: int | None) -> bool:
    """Padded rows with labels, as for classifiers; returns whether they must have the same number of end tokens."""
    _require_no_choice(model, settings, limit)
    lengths = _LENGTHS if limit is None else [min(length, limit) for length in _LENGTHS]
    rows = [tokenizer(_WORDS * length, truncation=True, max_length=length)["input_ids"] for length in lengths]

    def attempt(rows: list[list[int]]) -> torch.Tensor:
        pad = PadRows(tokenizer.pad_token_id, left=tokenizer.padding_side == "left")
        batch = pad([{"input_ids": row, "labels": number % 2} for number, row in enumerate(rows)])
        outputs = model(**batch)
        _require_outputs(outputs, (len(rows), model.config.num_labels))
        model.train()
        model(**batch)
        model.eval()
        logits: torch.Tensor = outputs.logits
        return logits

    with trying(model, _cpu(model)):
        padded, alone = attempt(rows), torch.cat([attempt([row]) for row in rows])
        if not torch.allclose(padded, alone, rtol=0, atol=NOTICEABLE * float(alone.abs().max())):
            raise InvalidError(
                [
                    tasks.of(settings.task).misfit(
                        model.config.model_type,
                        "its answer to a text depends on the padding that longer texts of the batch bring",
                    )
                ]
            )
        end = tokenizer.eos_token_id
        if end is None or not getattr(model.config, "is_encoder_decoder", False):
            return False
        try:
            attempt([rows[0], [end, *rows[1][1:]]])
        except Exception:  # noqa: BLE001 - whatever it raises, rows with one end token passed
            return True
    return False


def _require_no_choice(model: Any, settings: Settings, limit: int | None) -> None:
    """Refuse attention to a selection of tokens (DeepSeek's sparse attention) that is not all of a row.

    For tokens of equal score the selection depends on the length of the batch: too rarely for a trial to show, but
    often enough for a figure to depend on the batch size.
    """
    choice = getattr(text_part(model.config), "index_topk", None)
    if isinstance(choice, int) and (limit is None or limit > choice):
        raise InvalidError(
            [
                f"spec.task: {settings.task} does not work with a model of type {model.config.model_type} that attends "
                f"to {choice} tokens of a text (index_topk): which ones depends on the padding that longer texts of "
                f"the batch bring. Set index_topk to {limit or 'the longest text'}, or take another type"
            ]
        )


def _try_answer(model: Any, ordinary: torch.Tensor, tokenizer: Any, settings: Settings) -> None:
    """Raises InvalidError if a model cannot continue a prompt."""
    sample = settings.sample
    try:
        with trying(model, _cpu(model)):
            model.generate(
                input_ids=_some_ids(ordinary, 3), attention_mask=torch.ones(1, 3, dtype=torch.int64),
                do_sample=True, max_new_tokens=2, top_k=sample.top_k, top_p=sample.top_p,
                pad_token_id=tokenizer.pad_token_id, use_cache=True,
            )  # fmt: skip
    except Exception as error:
        raise InvalidError(
            [
                f"spec.sample.prompts: a model of type {model.config.model_type} does not continue text "
                f"({_described(error)}); remove them"
            ]
        ) from error
