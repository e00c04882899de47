"""Trained weights in a folder: an adapter's where the model has one, else all of the model's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lmft_job.adapters.attach import ADAPTER, has_adapter
from lmft_job.models import weights
from lmft_job.sharding.divide import trains_divided
from lmft_job.sharding.files import has_shards, load_weights, save_weights

FILE = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."


class UnfitAdapterError(Exception):
    """Stored weights of an adapter that are damaged or belong to another model; the message says which."""


def save(model: Any, folder: Path) -> None:
    """Write a model's trained weights into a folder, with what it takes to load them; of divided ones only the part.

    transformers' ``save_pretrained`` would ask the hub whether the base model's vocabulary had another size.
    """
    if trains_divided(model):
        save_weights(model, folder)
        return
    if not has_adapter(model):
        model.save_pretrained(folder)
        return
    save_about_adapter(model, folder)
    save_adapter(state_of(model), folder)


def save_adapter(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write an adapter's weights, by their names in :func:`state_of`."""
    stored = {f"{_PREFIX}{name}": value.contiguous().cpu() for name, value in state.items()}
    save_file(stored, folder / FILE, metadata={"format": "pt"})


def save_about_adapter(model: Any, folder: Path) -> None:
    """Write what it takes to load a model's adapter, without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config[ADAPTER].save_pretrained(str(folder))
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def restore(model: Any, folder: Path) -> None:
    """Give a model the trained weights that it saved in a folder.

    Raises:
        InvalidError: they belong to another model.
        UnfitAdapterError: an adapter's that do not fit.
    """
    if has_shards(folder):
        load_weights(model, folder)
        return
    if not has_adapter(model):
        weights.restore(model, folder)
        return
    from peft import set_peft_model_state_dict

    require_fitting(model, folder)
    stored = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / FILE).items()}
    set_peft_model_state_dict(model, stored, adapter_name=ADAPTER)


def require_fitting(model: Any, folder: Path) -> None:
    """Check names, shapes and numbers of an adapter's stored weights against a model that has one like it.

    Raises:
        UnfitAdapterError: the file is missing or damaged, or belongs to another adapter.
    """
    path = folder / FILE
    if path.is_symlink() or not path.is_file():
        raise UnfitAdapterError(f"{FILE} is missing")
    wanted = {f"{_PREFIX}{name}": tuple(value.shape) for name, value in state_of(model).items()}
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            if odd := sorted(names ^ set(wanted)):
                whose = "it" if odd[0] in names else "the model's adapter"
                raise UnfitAdapterError(f"only {whose} has {odd[0].removeprefix(_PREFIX)}")
            if bad := sorted(name for name in names if shapes[name] != wanted[name]):
                raise UnfitAdapterError(f"{bad[0].removeprefix(_PREFIX)} is {shapes[bad[0]]} and not {wanted[bad[0]]}")
            for name in sorted(names):
                value = file.get_tensor(name)
                if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
                    raise UnfitAdapterError(f"{name.removeprefix(_PREFIX)} holds NaN, infinity, or no numbers")
    except (SafetensorError, OSError, ValueError) as error:
        raise UnfitAdapterError(f"{FILE} is damaged ({str(error)[:200]})") from error


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's trained weights by their names in its file, without the prefix of that."""
    from peft import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    return found


def size_of(model: Any) -> int:
    """Number of trained weights."""
    return sum(math.prod(value.shape) for value in state_of(model).values())
