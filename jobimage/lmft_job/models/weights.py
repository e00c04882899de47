"""Published weights: read from a folder's safetensors, and refused if they are not the model's own.

transformers fills in missing weights with random numbers and skips those that do not fit, with a warning that nobody
sees in a pod. A run on such weights succeeds and its result is worthless, so each of these cases is checked here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lmft_api.tasks import Task
from lmft_api.text.wording import first_line
from lmft_job import tasks
from lmft_job.errors import InvalidError
from lmft_job.models.config import text_part
from lmft_job.models.sources.parsing import weights_of
from lmft_job.sharding.divide import fill, is_divided, plain_class

_INDEX = "model.safetensors.index.json"
# Prefixes that torch's wrappers (compile, DDP, FSDP, activation checkpointing) add to the names of what they wrap.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_WRAPPER = "module."
_QUANTIZED_TYPES = ("F8_", "F6_", "F4", "I4", "U4")
_QUANTIZED_NAMES = re.compile(r"\.(qweight|qzeros|scales|weight_scale(_inv)?|weight_packed|absmax|quant_map|SCB)$")
_HEAD = re.compile(r"(^|[._])(classifier|classification_head|score|pooler|pooling|summary|logits_proj|pre_classifier)")
_SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """A model with the weights of a folder.

    Attributes:
        model: in FP32, or in the type that it was asked for.
        notes: notes about its weights for people.
        fresh: names of the weights that the folder lacks.
        dtype: type of most of the folder's weights.
        enlarged: whether its embeddings were enlarged for the tokenizer.
        size: number of its weights, without those of an adapter; 0 before it is counted.
    """

    model: Any
    notes: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    enlarged: bool = False
    size: int = 0


def load_weights(
    factory: Any,
    folder: Path,
    config: Any,
    task: Task,
    field: str,
    *,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Loaded:
    """A model from a folder's safetensors, in FP32 (from_pretrained alone would keep the type of the file).

    Args:
        factory: the Auto class of the task.
        folder: with config and safetensors.
        config: configuration of the model.
        task: a classifier's head may be fresh; nothing else may.
        field: manifest field to name in errors.
        trust_remote_code: run the folder's own code.
        dtype: type of its weights in memory.

    Raises:
        InvalidError: the weights are not safetensors, damaged, incomplete, quantized, of another shape, or not finite.
    """
    _refuse_quantized_config(config, field)
    types = _read_headers(folder, field)
    renamed = _wrapped(types)
    try:
        with weights_of(folder, field, trust_remote_code=trust_remote_code) as guarded:
            model, info = factory.from_pretrained(
                str(guarded),
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                # A new head for other labels than the checkpoint's is what fine-tuning a classifier means; any other
                # mismatch is refused below, with its name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **({"key_mapping": renamed} if renamed else {}),
            )
    except InvalidError:
        raise
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InvalidError([f"{field}: the model cannot be built ({first_line(error)})"]) from error
    if renamed and getattr(model, "_weight_conversions", None):
        # It would add the wrappers' prefixes to the saved names again.
        kept = [one for one in model._weight_conversions if not set(one.source_patterns) & set(renamed)]
        model._weight_conversions = kept or None
    for name, _ in model.named_parameters():
        if types.get(name, "F").startswith(("I", "U")):
            raise InvalidError([_quantized(field, f"{name} is {types[name]}")])
    notes, fresh = _judge(model, info, task, field)
    _refuse_no_numbers(model, field)
    _keep_untied(model)
    return Loaded(model, tuple(notes), tuple(fresh), _prevailing(types.values()))


_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def _prevailing(types: Iterable[str]) -> torch.dtype:
    """The type of most of the stored tensors that hold numbers of a width that models compute in."""
    counts = Counter(kind for kind in types if kind in _TYPES)
    return _TYPES[counts.most_common(1)[0][0]] if counts else torch.float32


def _refuse_quantized_config(config: Any, field: str) -> None:
    settings = getattr(config, "quantization_config", None)
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
        raise InvalidError([_quantized(field, f"by {getattr(method, 'value', method) or 'an unknown method'}")])


def _quantized(field: str, how: str) -> str:
    return (
        f"{field}: its weights are quantized ({how}), and fine-tuning all weights needs them unquantized. Use the "
        "model that it was made from, in BF16, FP16 or FP32."
    )


def _read_headers(folder: Path, field: str) -> dict[str, str]:
    """Types of the stored tensors by name.

    Raises:
        InvalidError: a file is missing or damaged, or weights are quantized.
    """
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted(path.name for path in folder.glob("*.bin"))
        said = f" ({others[0]} is a pickle, which could run code when loaded)" if others else ""
        raise InvalidError([f"{field}: it has no weights as safetensors{said}. Convert them, or choose another model."])
    names = _files(folder, [path.name for path in found], field)
    types: dict[str, str] = {}
    for name in names:
        try:
            with safe_open(folder / name, "pt") as file:
                types |= {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise InvalidError(
                [f"{field}: its file {name} is damaged or incomplete ({first_line(error)}). Copy the model again."]
            ) from error
    for key, kind in types.items():
        if kind.startswith(_QUANTIZED_TYPES) or _QUANTIZED_NAMES.search(key):
            raise InvalidError([_quantized(field, f"{key} is {kind}")])
    return types


def _files(folder: Path, found: Sequence[str], field: str) -> Sequence[str]:
    """The files that hold the weights: a single file, or those that the index lists."""
    if "model.safetensors" in found:
        return ["model.safetensors"]
    if not (folder / _INDEX).is_file():
        if len(found) == 1 and "-of-" not in found[0]:
            raise InvalidError([f"{field}: its weights are in {found[0]}; rename it to model.safetensors"])
        raise InvalidError([f"{field}: its weights are in parts, and {_INDEX} is missing. Copy the model again."])
    try:
        listed = sorted({str(name) for name in json.loads((folder / _INDEX).read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidError(
            [f"{field}: its {_INDEX} cannot be read ({first_line(error)}). Copy the model again."]
        ) from error
    missing = [name for name in listed if name not in found]
    if missing:
        raise InvalidError(
            [f"{field}: {len(missing)} of its {len(listed)} files of weights are missing: {_some(missing)}. "
             "Copy the model again."]
        )  # fmt: skip
    return listed


def _wrapped(names: Iterable[str]) -> dict[str, str]:
    """Patterns that remove the prefixes of torch's wrappers from the names; empty if there are none."""
    renamed = {re.escape(mark): "" for mark in _WRAPPERS if any(mark in name for name in names)}
    bare = [re.sub("|".join(renamed) or r"(?!)", "", name) for name in names]
    if bare and all(name.startswith(_WRAPPER) for name in bare):
        renamed[rf"^{re.escape(_WRAPPER)}"] = ""
    return renamed


def _judge(model: Any, info: dict[str, Any], task: Task, field: str) -> tuple[list[str], list[str]]:
    """Notes on weights that were skipped, and the names of those that are fresh.

    Raises:
        InvalidError: weights are missing, or of another shape, and are not a fresh head.
    """
    missing, other = sorted(info["missing_keys"]), sorted(map(tuple, info["mismatched_keys"]))
    extra = sorted(info["unexpected_keys"])
    fresh = [name for name in (*missing, *(name for name, *_ in other)) if _is_fresh(model, name, task)]
    wrong = []
    if lost := [name for name in missing if name not in fresh]:
        wrong.append(_missing(model, lost, extra, task, field))
    if bad := [f"{name} {tuple(here)} and not {tuple(meant)}" for name, here, meant in other if name not in fresh]:
        wrong.append(f"{field}: its weights have other shapes than its config.json says: {_some(bad)}")
    if beyond := _beyond(model, extra):
        wrong.append(
            f"{field}: its weights have more layers than its config.json says ({_some(beyond)} are left over). "
            "Correct the configuration, or the model would be cut."
        )
    if info.get("error_msgs"):
        wrong.append(f"{field}: its weights cannot be loaded ({first_line(ValueError(info['error_msgs'][0]))})")
    if wrong:
        raise InvalidError(wrong)
    notes = []
    if fresh:
        notes.append(f"the classification head is newly initialised, from the seed: {_some(fresh)}")
    if extra:
        notes.append(f"weights of {field} that the model does not use were ignored: {_some(extra)}")
    return notes, fresh


def _missing(model: Any, lost: list[str], extra: list[str], task: Task, field: str) -> str:
    if len(lost) == len(model.state_dict()) or len(extra) >= len(lost) > _SHOWN:
        named = f", and names others, such as {extra[0]}" if extra else ""
        return f"{field}: it lacks weights of {type(model).__name__}: {_some(lost)}{named}. Is it another model's?"
    return (
        f"{field}: it lacks {_some(lost)}, which would be initialised randomly. Choose a checkpoint with a head for "
        f"{task}, not a base model."
    )


def _is_fresh(model: Any, name: str, task: Task) -> bool:
    """Whether a weight belongs to a classifier's head, which may be fresh."""
    if not tasks.of(task).has_labels:
        return False
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and hasattr(model, prefix) and not name.startswith(f"{prefix}."):
        return True
    return _HEAD.search(name) is not None


def _beyond(model: Any, extra: list[str]) -> list[str]:
    """Unused weights that differ from one of the model's only in a number, which is that of a layer."""
    known = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    return [name for name in extra if re.search(r"\d", name) and re.sub(r"\d+", "#", name) in known]


def _refuse_no_numbers(model: Any, field: str) -> None:
    bad = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if bad:
        raise InvalidError(
            [f"{field}: its weights hold NaN or infinity ({_some(bad)}): it diverged when it was trained, or was cut "
             "to FP16. Choose another checkpoint."]
        )  # fmt: skip


def _keep_untied(model: Any) -> None:
    """If input and output embeddings differ though the configuration ties them, transformers keeps them separate.

    The configuration is changed accordingly: otherwise they would be tied when the published model is loaded.
    """
    for part in (model.config, text_part(model.config)):
        if getattr(part, "tie_word_embeddings", False) and not getattr(model, "all_tied_weights_keys", True):
            output = model.get_output_embeddings()
            if output is not None and output.weight is not model.get_input_embeddings().weight:
                part.tie_word_embeddings = False


def restore(model: Any, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint that it saved.

    ``Trainer`` uses the stored names as they are, and skips those that transformers changes when it saves
    (experts of a mixture are stored one by one): the model would resume with other weights than it stopped with.

    Raises:
        InvalidError: they belong to another model.
    """
    try:
        files = sorted(checkpoint.glob("*.safetensors"))
        stored = set().union(*(_names(file) for file in files))
        if _are_its_own(model, stored):
            for file in files:
                if is_divided(model):
                    fill(model, _tensors(file))
                else:
                    model.load_state_dict(load_file(file), strict=False)
        else:
            # Temporarily needs memory for a second copy of the weights.
            with weights_of(checkpoint, "checkpoint") as guarded:
                loaded, info = plain_class(model).from_pretrained(
                    str(guarded), config=model.config, dtype=torch.float32, output_loading_info=True
                )
            odd = sorted(info["missing_keys"]) or sorted(info["unexpected_keys"])
            if odd:
                raise ValueError(f"{_some(odd)}: only one of both has it")
            if is_divided(model):
                fill(model, loaded.state_dict().items())
            else:
                model.load_state_dict(loaded.state_dict(), strict=True)
    except (RuntimeError, ValueError) as error:
        raise InvalidError(
            [
                f"spec.model: it is not the model that this run began with ({first_line(error)}). Restore it, or start "
                "another run."
            ]
        ) from error


def misfits(model: Any, checkpoint: Path) -> list[str] | None:
    """Names of a checkpoint's weights whose shapes are not the model's, by the files' headers.

    None where names differ, which transformers may have changed when it saved: its own loading tells.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    if not _are_its_own(model, set(shapes)):
        return None
    known = model.state_dict()
    return sorted(name for name, shape in shapes.items() if shape != tuple(known[name].shape))


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """One after the other, so that no more than one of them is in memory."""
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            yield name, opened.get_tensor(name)


def _names(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def _are_its_own(model: Any, stored: set[str]) -> bool:
    """Whether stored names are those in memory, except those that share their weights with one of them."""
    known = model.state_dict()
    if is_divided(model):  # a process may hold no row of a weight, so where its memory lies says nothing
        shared = {name: id(weight) for name, weight in model.named_parameters(remove_duplicate=False)}
        same = {shared.get(name) for name in stored}
        return stored <= known.keys() and all(shared.get(name) in same for name in known.keys() - stored)
    held = {known[name].data_ptr() for name in stored & known.keys()}
    return stored <= known.keys() and all(known[name].data_ptr() in held for name in known.keys() - stored)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
