"""Configurations of models: made from a manifest, completed from tokenizer and labels, and their limits."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import transformers
from transformers import AutoConfig
from transformers.activations import ACT2FN

from lmft_api.tasks import Task
from lmft_api.text.wording import did_you_mean, first_line
from lmft_job import tasks
from lmft_job.errors import InvalidError
from lmft_job.models.sources.counts import excessive
from lmft_job.models.tokenizers import id_count

_NO_LIMIT = 10**9
_WHERE = "spec.model.fromConfig"
_CLASSES = ("num_labels", "id2label", "label2id")
_ONE_LABEL = "single_label_classification"
_ACTIVATION = re.compile(r"(^|_)(act|activation)(_|$)")
_WRONG_TYPE = re.compile(
    r"Validation error for field '(?P<field>\w+)'.*?expected (?P<wanted>\w+), got (?P<got>\w+)", re.DOTALL
)
_WORDS = {
    "float": "a number with a decimal point, such as 0.02", "int": "a whole number", "bool": "true or false",
    "str": "text", "list": "a list", "dict": "a mapping",
}  # fmt: skip


def parts_of(config: Any) -> tuple[Any, Any]:
    """The configuration, and its language model part, which may be the same."""
    return config, text_part(config)


def text_part(config: Any) -> Any:
    """The configuration's language model part: a part of it if the model also takes images or audio, else all of it."""
    try:
        return config.get_text_config()
    except ValueError:  # it has several
        return getattr(config, "decoder", config)


@contextmanager
def without_cache(model: Any) -> Iterator[None]:
    """Within it, forward passes keep no keys and values for generation, as in training.

    With a cache, transformers does not look for texts that share a row, and they would see each other.
    """
    config = getattr(model, "config", None)
    parts = {} if config is None else {id(part): part for part in (config, text_part(config))}
    before = [(part, part.use_cache) for part in parts.values() if hasattr(part, "use_cache")]
    for part, _ in before:
        part.use_cache = False
    try:
        yield
    finally:
        for part, wanted in before:
            part.use_cache = wanted


def fresh_config(
    given: dict[str, Any],
    tokenizer: Any | None,
    labels: Sequence[str] | None,
    tokens: int | None = None,
    *,
    labelled: bool = False,
) -> Any:
    """A configuration for training from scratch, with the tokenizer's vocabulary size and special ids.

    Args:
        given: ``spec.model.fromConfig``.
        tokenizer: None leaves these as they are; the rest can be checked already.
        labels: names of the classes; None for the other tasks.
        tokens: size of the vocabulary; None for the tokenizer's.
        labelled: whether the task has classes, though ``labels`` may not be known yet: the data decides on them.

    Raises:
        InvalidError: unknown model_type or keys, values that the model rejects, or a vocabulary that is too small.
    """
    rest = dict(given)
    kind = rest.pop("model_type", None)
    if not isinstance(kind, str):
        wrong = "is missing; set it" if kind is None else f"must be text, not {kind!r}"
        raise InvalidError([f"{_WHERE}.model_type: {wrong}, for example gpt2 or bert"])
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        raise InvalidError(
            [f"{_WHERE}.model_type: transformers knows no model type {kind!r}{did_you_mean(kind, list(known.keys()))}"]
        )
    if too_many := [f"{_WHERE}.{name}: {words}" for name, words in excessive(rest)]:
        raise InvalidError(too_many)
    if labelled and (wrong_classes := list(_not_of_the_data(rest))):
        raise InvalidError(wrong_classes)
    try:
        reference = known[kind]()
        names = set(reference.to_dict()) | set(reference.attribute_map)
        unknown = [name for name in rest if name not in names and not hasattr(reference, name)]
        if unknown:
            raise InvalidError(
                [f"{_WHERE}.{name}: {kind} has no such setting{did_you_mean(name, sorted(names))}" for name in unknown]
            )
        if wrong_names := list(_unknown_activations(rest, reference, _WHERE)):
            raise InvalidError(wrong_names)
        if tokenizer is not None:
            rest = _with_vocabulary(rest, reference, tokenizer, tokens or id_count(tokenizer))
        return AutoConfig.for_model(kind, **rest, **label_settings(labels))
    except InvalidError:
        raise
    except Exception as error:
        raise InvalidError([_not_accepted(kind, rest, error)]) from error


def _not_of_the_data(given: dict[str, Any]) -> Iterator[str]:
    """Problems with settings that the data's labels decide; removes the one that says what is done anyway."""
    for name in _CLASSES:
        if name in given:
            yield f"{_WHERE}.{name}: the classes are those of spec.dataset.labelField in the data; remove it"
    if (kind := given.get("problem_type")) not in (None, _ONE_LABEL):
        yield (
            f"{_WHERE}.problem_type: {kind!r} is not supported: each row has one class ({_ONE_LABEL}); remove it. "
            "Regression and several labels for a row are not supported"
        )
    given.pop("problem_type", None)


def _unknown_activations(given: dict[str, Any], reference: Any, where: str) -> Iterator[str]:
    """Problems with names of activation functions, in the configuration's parts too."""
    for name, value in given.items():
        if isinstance(value, dict):
            part = getattr(reference, name, None)
            if hasattr(part, "to_dict"):
                yield from _unknown_activations(value, part, f"{where}.{name}")
            continue
        # No other setting is read: one that may differ from layer to layer raises an error of transformers.
        usual = getattr(reference, name, None) if _ACTIVATION.search(name) else None
        if isinstance(usual, str) and usual in ACT2FN and value not in (*ACT2FN, None):
            near = did_you_mean(value, ACT2FN) if isinstance(value, str) else ""
            yield (
                f"{where}.{name}: {value!r} is not an activation function that transformers knows"
                f"{near or '; take one such as gelu, gelu_new, relu or silu'}"
            )


def _not_accepted(kind: str, given: dict[str, Any], error: Exception) -> str:
    """The problem with settings that the configuration's class rejects: with the field, where it is named."""
    found = _WRONG_TYPE.search(str(error))
    if found is None or found["field"] not in given:
        return f"{_WHERE}: {kind} does not accept it ({first_line(error)})"
    value = given[found["field"]]
    wanted = _WORDS.get(found["wanted"], found["wanted"])
    if found["wanted"] == "float" and isinstance(value, str):
        wanted += " and without quotes (YAML reads 1e-5 as text: write 1.0e-5)"
    return f"{_WHERE}.{found['field']}: must be {wanted}, not {value!r}"


def _with_vocabulary(given: dict[str, Any], reference: Any, tokenizer: Any, tokens: int) -> dict[str, Any]:
    """The settings, with vocabulary size and special ids under the keys where the model expects them."""
    part = text_part(reference)
    name = next((name for name, value in vars(reference).items() if value is part), None)
    if name is None:
        return given | _vocabulary_settings(given, reference, tokenizer, tokens, _WHERE)
    inner = given.get(name, {})
    if not isinstance(inner, dict):
        raise InvalidError([f"{_WHERE}.{name}: must be a mapping of settings, not {inner!r}"])
    inner = inner | _vocabulary_settings(inner, part, tokenizer, tokens, f"{_WHERE}.{name}")
    if part.model_type and "model_type" not in inner:
        inner["model_type"] = part.model_type
    return given | {name: inner}


def _vocabulary_settings(
    given: dict[str, Any], reference: Any, tokenizer: Any, tokens: int, where: str
) -> dict[str, Any]:
    size = given.get("vocab_size", tokens)
    if not isinstance(size, int) or size < tokens:
        raise InvalidError([f"{where}.vocab_size: {size} is less than the tokenizer's {tokens} tokens; remove it"])
    found: dict[str, Any] = {"vocab_size": size}
    for name in ("bos", "eos", "pad", "sep", "cls", "mask"):
        key = f"{name}_token_id"
        if key not in given and hasattr(reference, key):
            found[key] = _id_for(reference, key, tokenizer)
    return found


def _id_for(reference: Any, key: str, tokenizer: Any) -> int | None:
    """The tokenizer's id; if it has none and the model type requires one, the end or padding id."""
    token: int | None = getattr(tokenizer, key, None)
    if token is not None:
        return token
    try:
        type(reference)(**{key: None})
    except Exception:  # noqa: BLE001 - configurations may raise anything to reject None
        return next((one for one in (tokenizer.eos_token_id, tokenizer.pad_token_id) if one is not None), 0)
    return None


def require_head(task: Task, config: Any) -> None:
    """Refuse a model type without a head for the task, before anything is downloaded or tokenised for it.

    Raises:
        InvalidError: transformers has no such head. Remote code brings its own and is not checked.
    """
    kind = tasks.of(task)
    factory = getattr(transformers, kind.auto_class)
    carried = (getattr(config, "auto_map", None) or {}).get(kind.auto_class)
    if type(config) not in factory._model_mapping and carried is None:
        raise InvalidError(
            [f"spec.task: {task} does not work with a model of type {config.model_type}; it has no such head"]
        )
    if config.model_type in kind.unfit_types:
        raise InvalidError([kind.misfit(config.model_type, kind.unfit_reason)])


def complete_config(config: Any, task: Task, tokenizer: Any) -> None:
    """Fill in what configurations omit and models need: padding id, the decoder's first token, and direction."""
    for part in (config, text_part(config)):
        # A decoder that classifies uses a row's last token that is not padding, so it needs the tokenizer's padding id.
        if getattr(part, "pad_token_id", None) is None or tasks.of(task).has_labels:
            part.pad_token_id = tokenizer.pad_token_id
    if getattr(config, "is_encoder_decoder", False):
        if getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = config.pad_token_id
    elif tasks.of(task).causal and getattr(config, "is_decoder", None) is False:
        # Encoders such as BERT see the whole input by default, including the token to predict: perplexity approaches 1.
        config.is_decoder = True


def take_padding(tokenizer: Any, config: Any) -> None:
    """Make the tokenizer of a pretrained classifier pad with the model's padding token, if that is a special token.

    RoBERTa and related models count positions from its id; the weights were trained with that one.
    """
    pad = text_part(config).pad_token_id if hasattr(text_part(config), "pad_token_id") else None
    if isinstance(pad, int) and pad != tokenizer.pad_token_id and pad in tokenizer.all_special_ids:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)


def position_limit(config: Any, tokenizer: Any | None) -> int | None:
    """Tokens that fit into one input, according to the configuration; None if the model has no limit.

    Some models number their positions from more than 0, which lowers the limit: see the rehearsal.
    """
    positions = positions_of(config)
    limits = [] if positions is None else [positions]
    longest = getattr(tokenizer, "model_max_length", None)
    if isinstance(longest, int) and longest < _NO_LIMIT:
        limits.append(longest)
    return min(limits) if limits else None


def positions_of(config: Any) -> int | None:
    """Number of positions in the configuration; None for no limit."""
    positions = getattr(text_part(config), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def label_settings(labels: Sequence[str] | None) -> dict[str, Any]:
    """Settings for a classifier with these classes; empty for None."""
    if labels is None:
        return {}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
