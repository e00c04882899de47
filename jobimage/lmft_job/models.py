"""Models and tokenizers through transformers' Auto classes: by name, from a folder, or fresh from a config."""

import difflib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from lmft_api.spec import Task
from lmft_job.errors import InvalidError, JobError
from lmft_job.model_files import Say
from lmft_job.model_parsing import SlowTokenizerError, config_of, tokenizer_of, weights_of
from lmft_job.probes import not_causal
from lmft_job.report.model import ModelSummary
from lmft_job.report.words import quantity

log = logging.getLogger(__name__)

_AUTO_CLASSES = {
    Task.CAUSAL_LM: "AutoModelForCausalLM",
    Task.MASKED_LM: "AutoModelForMaskedLM",
    Task.SEQUENCE_CLASSIFICATION: "AutoModelForSequenceClassification",
}
# RoBERTa and its kin number positions from the padding id + 1, which costs that many of them.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "data2vec-text", "ibert"}
# Their CausalLM head scores each token against itself, or sees it. Named here to be refused before anything is
# downloaded for them; those that are not named are found out by require_next_token.
_NOT_CAUSAL = {
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "cpmant", "marian", "mbart", "mvp", "pegasus",
    "plbart", "prophetnet", "trocr", "whisper", "xlm", "xlnet",
}  # fmt: skip
_NO_LIMIT = 10**9


def load_tokenizer(folder: Path, field: str, *, trust_remote_code: bool = False, say: Say = log.info) -> Any:
    """The fast tokenizer of a folder, ready for training.

    Raises:
        InvalidError: when the folder has none, or only a slow one (packing relies on the fast tokenizers' batches).
    """
    try:
        return tokenizer_of(folder, field, say, trust_remote_code=trust_remote_code)
    except JobError:
        raise
    except SlowTokenizerError as error:
        raise InvalidError(
            [f"{field}: its tokenizer {error} has no fast version. Name another in spec.model.tokenizer."]
        ) from error
    except Exception as error:
        raise InvalidError(
            [f"{field}: its tokenizer cannot be loaded ({_first_line(error)}). Set spec.model.tokenizer.name."]
        ) from error


def ready_tokenizer(tokenizer: Any, task: Task) -> Any:
    """Give a tokenizer what the task needs: the end-of-text token pads where it has no padding token of its own.

    Packed blocks are never padded and rows carry an attention mask, so no real end-of-text label is masked away.

    Raises:
        InvalidError: for MaskedLM without a mask token, or with nothing to pad with.
    """
    if task == Task.MASKED_LM and tokenizer.mask_token_id is None:
        raise InvalidError(
            [
                "spec.task: MaskedLM needs a tokenizer with a mask token, and this one has none. Use a model such as "
                "distilbert/distilroberta-base, or task CausalLM."
            ]
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None and task == Task.SEQUENCE_CLASSIFICATION:
            raise InvalidError(
                ["spec.model.tokenizer: it has neither a padding nor an end-of-text token to pad rows with."]
            )
        if tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(
    folder: Path, field: str, *, trust_remote_code: bool, labels: Sequence[str] | None, say: Say = log.info
) -> Any:
    """The configuration of a pretrained model.

    Raises:
        InvalidError: unreadable, or of code that the repository carries and that is not trusted.
    """
    extra = _label_settings(labels)
    try:
        return config_of(folder, field, say, trust_remote_code=trust_remote_code, **extra)
    except JobError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise InvalidError(
                [
                    f"{field}: this model runs code that its repository carries. Choose one that transformers knows, "
                    "or set spec.model.trustRemoteCode and have it allowed (policy, or --allow-remote-code)."
                ]
            ) from error
        raise InvalidError([f"{field}: its configuration cannot be used ({_first_line(error)})."]) from error


def fresh_config(given: dict[str, Any], tokenizer: Any | None, labels: Sequence[str] | None) -> Any:
    """A configuration for training from scratch, with vocabulary and special ids of the tokenizer.

    Without a tokenizer (it is yet to be trained) those are left as they are; the rest can be checked already.

    Raises:
        InvalidError: unknown model_type or keys, values the model refuses, a vocabulary that is too small.
    """
    rest = dict(given)
    where = "spec.model.fromConfig"
    kind = rest.pop("model_type", None)
    if not isinstance(kind, str):
        wrong = "is missing; set it" if kind is None else f"must be text, not {kind!r}"
        raise InvalidError([f"{where}.model_type: {wrong}, for example gpt2 or bert"])
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        raise InvalidError(
            [f"{where}.model_type: transformers knows no model type {kind!r}{_suggest(kind, list(known.keys()))}"]
        )
    try:
        reference = known[kind]()
        names = set(reference.to_dict()) | set(reference.attribute_map)
        unknown = [name for name in rest if name not in names and not hasattr(reference, name)]
        if unknown:
            raise InvalidError(
                [f"{where}.{name}: {kind} has no such setting{_suggest(name, sorted(names))}" for name in unknown]
            )
        if tokenizer is not None:
            rest |= _vocabulary_settings(rest, reference, tokenizer)
        config = AutoConfig.for_model(kind, **rest, **_label_settings(labels))
    except InvalidError:
        raise
    except Exception as error:
        raise InvalidError([f"{where}: {kind} does not accept it ({_first_line(error)})"]) from error
    return config


def require_head(task: Task, config: Any) -> None:
    """Refuse a model type that has no head for the task, before anything is downloaded or tokenised for it.

    Raises:
        InvalidError: when transformers knows none. Remote code brings its own and is not looked at.
    """
    factory = getattr(transformers, _AUTO_CLASSES[task])
    carried = (getattr(config, "auto_map", None) or {}).get(_AUTO_CLASSES[task])
    if type(config) not in factory._model_mapping and carried is None:
        raise InvalidError(
            [f"spec.task: {task} does not go with a model of type {config.model_type}; it has no such head"]
        )
    if task == Task.CAUSAL_LM and config.model_type in _NOT_CAUSAL:
        raise InvalidError([not_causal(config.model_type, "its head does not learn to predict the next token")])


def build_model(
    task: Task,
    config: Any,
    tokenizer: Any,
    weights: Path | None,
    field: str,
    *,
    seed: int,
    trust_remote_code: bool = False,
) -> Any:
    """The model, its weights in FP32 (from_pretrained alone would keep the type of the file).

    Args:
        task: chooses the head.
        config: its configuration.
        tokenizer: the embeddings are enlarged to hold all of its tokens.
        weights: folder with safetensors; None draws fresh weights from the seed.
        field: manifest field to blame.
        seed: for fresh weights and a fresh head.
        trust_remote_code: run the folder's own code.

    Raises:
        InvalidError: no such head for this model, weights that are missing or do not fit.
    """
    require_head(task, config)
    if task == Task.CAUSAL_LM:
        _see_only_what_came_before(config)
    factory = getattr(transformers, _AUTO_CLASSES[task])
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    transformers.set_seed(seed)
    try:
        if weights is None:
            model = factory.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
        else:
            _require_safetensors(weights, field)
            with weights_of(weights, field, trust_remote_code=trust_remote_code) as folder:
                model = factory.from_pretrained(
                    str(folder),
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=trust_remote_code,
                    # A new head for other labels than the checkpoint's is what fine-tuning a classifier means.
                    ignore_mismatched_sizes=task == Task.SEQUENCE_CLASSIFICATION,
                )
    except InvalidError:
        raise
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InvalidError([f"{field}: the model cannot be built ({_first_line(error)})"]) from error
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    if getattr(model, "generation_config", None) is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if weights is None and task == Task.CAUSAL_LM and (positions := _positions(config)) is not None:
        # A pipeline answers with 256 tokens unless told otherwise, and a small model may not have as many positions.
        model.generation_config.max_length = positions
    return model


def position_limit(config: Any, tokenizer: Any | None) -> int | None:
    """Tokens that fit into one input; None when the model has no limit of its own."""
    positions = _positions(config)
    limits = [] if positions is None else [positions]
    longest = getattr(tokenizer, "model_max_length", None)
    if isinstance(longest, int) and longest < _NO_LIMIT:
        limits.append(longest)
    return min(limits) if limits else None


def _positions(config: Any) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    return positions - ((config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0)


def summarise(config: Any, model: Any, name: str | None) -> ModelSummary:
    """What the report and the console say about the model."""
    layers = getattr(config, "num_hidden_layers", None)
    return ModelSummary(
        name=name or f"{config.model_type} (from config)",
        base_model=name,
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        detail=quantity(layers, "layers") if isinstance(layers, int) else None,
    )


def _see_only_what_came_before(config: Any) -> None:
    """Encoders such as BERT see the whole input unless told otherwise, the token to predict too: perplexity nears 1."""
    if getattr(config, "is_encoder_decoder", False):
        return
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True


def _vocabulary_settings(given: dict[str, Any], reference: Any, tokenizer: Any) -> dict[str, Any]:
    size = given.get("vocab_size", len(tokenizer))
    if not isinstance(size, int) or size < len(tokenizer):
        raise InvalidError(
            [
                f"spec.model.fromConfig.vocab_size: {size} is less than the tokenizer's {len(tokenizer)} "
                "tokens; remove it"
            ]
        )
    found: dict[str, Any] = {"vocab_size": size}
    for name in ("bos", "eos", "pad", "sep", "cls", "mask"):
        key = f"{name}_token_id"
        if key not in given and hasattr(reference, key):
            found[key] = getattr(tokenizer, key, None)
    return found


def _label_settings(labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _require_safetensors(folder: Path, field: str) -> None:
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.glob("*.bin"))
        found = f" ({others[0]} is a pickle, which could run code when loaded)" if others else ""
        raise InvalidError(
            [f"{field}: it has no weights as safetensors{found}. Convert them, or choose another model."]
        )


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:300] or type(error).__name__
