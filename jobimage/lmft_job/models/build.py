"""Models and tokenizers through transformers' Auto classes: by name, from a folder, or fresh from a config."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from lmft_api.tasks import Task
from lmft_api.text.wording import first_line
from lmft_job import tasks
from lmft_job.errors import InvalidError, JobError
from lmft_job.models.config import complete_config, label_settings, require_head
from lmft_job.models.device import host_memory
from lmft_job.models.next_token import embedding_rows
from lmft_job.models.padding_row import hold_padding_row
from lmft_job.models.sources.files import CONFIG, Say
from lmft_job.models.sources.parsing import SlowTokenizerError, config_of, tokenizer_of
from lmft_job.models.tokenizers import id_count
from lmft_job.models.weights import Loaded, load_weights
from lmft_job.storage import disk_error, is_disk_full

log = logging.getLogger(__name__)


def load_tokenizer(folder: Path, field: str, *, trust_remote_code: bool = False, say: Say = log.info) -> Any:
    """The fast tokenizer of a folder, ready for training.

    Raises:
        InvalidError: the folder has none, or only a slow one (packing relies on the fast tokenizers' batches).
    """
    try:
        return tokenizer_of(folder, field, say, trust_remote_code=trust_remote_code)
    except JobError:
        raise
    except SlowTokenizerError as error:
        raise InvalidError(
            [f"{field}: its tokenizer {error} has no fast version. Set another in spec.model.tokenizer."]
        ) from error
    except Exception as error:
        _raise_if_full(error, folder)
        raise InvalidError(
            [f"{field}: its tokenizer cannot be loaded ({first_line(error)}). Set spec.model.tokenizer.name."]
        ) from error


def _raise_if_full(error: Exception, folder: Path) -> None:
    """A full disk is no fault of the files that were read: raises UnavailableError."""
    if isinstance(error, OSError) and is_disk_full(error):
        raise disk_error(error, Path(error.filename or folder)) from error


def ready_tokenizer(tokenizer: Any, task: Task) -> Any:
    """Add what the task needs to a tokenizer: the end-of-text token pads if it has no padding token of its own.

    Packed blocks are never padded and rows carry an attention mask, so no real end-of-text label is masked away.

    Raises:
        InvalidError: it lacks a special token that the task needs.
    """
    if wrong := tasks.of(task).tokenizer_problem(tokenizer):
        raise InvalidError([wrong])
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(
    folder: Path, field: str, *, trust_remote_code: bool, labels: Sequence[str] | None, say: Say = log.info
) -> Any:
    """The configuration of a pretrained model.

    Raises:
        InvalidError: unreadable, or it needs code of the repository that is not trusted.
    """
    extra = label_settings(labels)
    if not (folder / CONFIG).is_file():
        raise InvalidError([f"{field}: has no config.json. Is it a model's folder?"])
    try:
        return config_of(folder, field, say, trust_remote_code=trust_remote_code, **extra)
    except JobError:
        raise
    except Exception as error:
        _raise_if_full(error, folder)
        if "trust_remote_code" in str(error):
            raise InvalidError(
                [
                    f"{field}: this model runs code from its repository. Choose one that transformers supports, or set "
                    "spec.model.trustRemoteCode and have it allowed (policy, or --allow-remote-code)."
                ]
            ) from error
        raise InvalidError([f"{field}: its configuration cannot be used ({first_line(error)})."]) from error


def build_model(
    task: Task,
    config: Any,
    tokenizer: Any,
    weights: Path | None,
    field: str,
    *,
    seed: int,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Loaded:
    """The model, with weights in FP32, and notes about it for people.

    Args:
        task: determines the head.
        config: configuration of the model.
        tokenizer: the embeddings are enlarged to hold all of its tokens.
        weights: folder with safetensors; None draws fresh weights from the seed.
        field: manifest field to name in errors.
        seed: for fresh weights and a fresh head.
        trust_remote_code: run the folder's own code.
        dtype: of weights that are loaded, in place of FP32.

    Raises:
        InvalidError: no such head for this model, or weights that are missing or do not fit.
    """
    require_head(task, config)
    complete_config(config, task, tokenizer)
    factory = getattr(transformers, tasks.of(task).auto_class)
    if weights is None:
        _require_room(factory, config, field, trust_remote_code=trust_remote_code)
    transformers.set_seed(seed)
    if weights is not None:
        built = load_weights(factory, weights, config, task, field, trust_remote_code=trust_remote_code, dtype=dtype)
    else:
        try:
            built = Loaded(factory.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code))
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            raise InvalidError([f"{field}: the model cannot be built ({first_line(error)})"]) from error
    _require_loadable(factory, built.model, field)
    _require_savable(built.model, field)
    enlarged = _make_room(built.model, id_count(tokenizer), field)
    held = hold_padding_row(built.model)
    repaired = _settle_generation(built.model, tokenizer, field)
    return replace(built, notes=(*built.notes, *held, *repaired), enlarged=enlarged)


def hollow_model(task: Task, config: Any, tokenizer: Any, *, rows: int, trust_remote_code: bool) -> Any:
    """The model that :func:`build_model` makes, on torch's meta device: with shapes, without memory.

    Args:
        task: determines the head.
        config: configuration of the model.
        tokenizer: completes it.
        rows: rows of the embeddings, where they are more than the configuration says; else 0.
        trust_remote_code: run the folder's own code.
    """
    complete_config(config, task, tokenizer)
    factory = getattr(transformers, tasks.of(task).auto_class)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = factory.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
        if rows:
            model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def _require_room(factory: Any, config: Any, field: str, *, trust_remote_code: bool) -> None:
    """Refuse a model that is larger than the machine's memory: where memory is overcommitted, building it would end
    this process or others with no word.
    """
    try:
        with torch.device("meta"):
            drawn = factory.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except Exception:
        # What is wrong with the settings is reported when the model is built.
        log.debug("the model's size is not known before it is built", exc_info=True)
        return
    count, memory = sum(weight.numel() for weight in drawn.parameters()), host_memory()
    if 4 * count > memory:
        raise InvalidError(
            [
                f"{field}: the model would have {count:,} parameters, {4 * count / 2**30:,.1f} GiB in FP32, and there "
                f"are {memory / 2**30:,.1f} GiB of memory. Make it smaller, or raise spec.resources.memory"
            ]
        )


def _require_loadable(factory: Any, model: Any, field: str) -> None:
    """Refuse a model that is only a part of what the configuration describes: once published, nobody could load it."""
    config = model.config
    if type(config) not in factory._model_mapping and not getattr(config, "auto_map", None):
        raise InvalidError(
            [f"{field}: {factory.__name__} makes a {type(model).__name__} of it, which it cannot load again once it is "
            "saved. Choose another model type"]
        )  # fmt: skip


def _require_savable(model: Any, field: str) -> None:
    """Refuse settings that transformers does not save, such as output_attentions beside SDPA, before training."""
    try:
        model.config.validate()
    except AttributeError:
        return  # a class from a repository's code may lack it
    except Exception as error:
        said = first_line(error.__cause__ or error)
        raise InvalidError([f"{field}: its settings could not be saved with the model ({said})"]) from error


def _make_room(model: Any, tokens: int, field: str) -> bool:
    """Enlarge the embeddings to hold all of the tokens; returns whether they were too small."""
    try:
        rows = embedding_rows(model)
    except (AttributeError, NotImplementedError):
        return False  # it has none, or something else in their place; the rehearsal shows whether it accepts the tokens
    if tokens <= rows:
        return False
    try:
        model.resize_token_embeddings(tokens)
    except Exception as error:
        raise InvalidError(
            [f"{field}: its {rows:,} embeddings cannot be enlarged to the {tokens:,} tokens ({first_line(error)})"]
        ) from error
    return True


def _settle_generation(model: Any, tokenizer: Any, field: str) -> list[str]:
    """Repair the generation settings so that they can be published; returns notes on what was repaired.

    Settings without effect, such as a temperature without sampling, are in many published models, and transformers
    refuses to save them once anything else has changed.

    Raises:
        InvalidError: they are invalid in another way.
    """
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return []
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    notes: list[str] = []
    try:
        settings.validate(strict=True)
    except ValueError:
        notes = _repair_generation(settings)
    try:
        settings.validate(strict=True)
    except ValueError as error:
        raise InvalidError(
            [f"{field}: its generation settings (generation_config.json) are wrong: {first_line(error)}"]
        ) from error
    return notes


_SAMPLING = ("temperature", "top_p", "min_p", "top_h", "typical_p", "top_k", "epsilon_cutoff", "eta_cutoff")
_BEAMS = ("early_stopping", "length_penalty")


def _repair_generation(settings: Any) -> list[str]:
    """A temperature without a sampling flag means sampling; other settings without effect are removed."""
    notes = []
    idle: list[str] = []
    if settings.temperature == 0:
        settings.temperature = None  # people write greedy decoding like this, and sampling rejects it
        idle.append("temperature 0")
    elif settings.do_sample is None and any(getattr(settings, name, None) is not None for name in _SAMPLING):
        settings.do_sample = True
        notes.append("generation_config.json: do_sample was missing beside sampling settings; it is published as true")
    without = [] if settings.do_sample else [*_SAMPLING]
    if settings.num_beams in (None, 1):
        without += _BEAMS
    if not settings.return_dict_in_generate:
        without += settings.extra_output_flags
    for name in without:
        if getattr(settings, name, None) not in (None, False):
            idle.append(name)
            setattr(settings, name, None)
    if idle:
        notes.append(f"generation_config.json: settings without effect are not published: {', '.join(sorted(idle))}")
    return notes
