"""Puts an adapter on a model whose weights stay frozen. peft does the work, through transformers' ``add_adapter``."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from lmft_api.addresses import decoded
from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.text.wording import first_line
from lmft_job.adapters.targets import Targets
from lmft_job.errors import InvalidError

ADAPTER = "default"
"""peft's name of the only adapter; it is in no file."""
_TASK_TYPES = {"AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSequenceClassification": "SEQ_CLS"}


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to, as ``adapter_config.json`` names it.

    Attributes:
        name: hub id, or address of a folder.
        revision: commit on the hub.
    """

    name: str
    revision: str | None = None


def as_loaded(name: str) -> str:
    """A base model's name as ``from_pretrained`` takes it: a file:// address is a path to it."""
    return decoded(name).removeprefix("file://") if name.startswith("file://") else name


def attach(model: Any, targets: Targets, wanted: AdapterSettings, base: Base, *, auto_class: str, seed: int) -> None:
    """Freeze a model and put a fresh adapter on it: its matrices B are zero, so the model answers as before.

    Args:
        model: changed in place; keeps its class. Its trained weights are FP32 afterwards.
        targets: its modules.
        wanted: settings of the adapter.
        base: recorded in the adapter's configuration.
        auto_class: transformers class of the task, for those who load the adapter.
        seed: for the matrices A.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        use_rslora=wanted.rank_stabilized,
        use_dora=wanted.type == AdapterType.DORA,
        target_modules=list(targets.adapted),
        modules_to_save=list(targets.heads) or None,
        task_type=_TASK_TYPES.get(auto_class),
        bias="none",
    )
    names = targets.shortest(model)
    transformers.set_seed(seed)
    with warnings.catch_warnings(), without_quantization():
        # It advises fan_in_fan_out for Conv1D, and sets it by itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        try:
            model.add_adapter(config, ADAPTER)
        except ValueError as error:
            kind = model.config.model_type
            raise InvalidError(
                [f"spec.training.adapter: peft puts none on a model of type {kind} ({first_line(error)})"]
            ) from error
    found = model.peft_config[ADAPTER]
    found.target_modules = names
    found.base_model_name_or_path, found.revision = as_loaded(base.name), base.revision
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def without_quantization() -> Iterator[None]:
    """Within it, peft does not import bitsandbytes (3 s) to ask of each layer whether it is in 4 bits.

    A model with such layers has imported it already.
    """
    if "bitsandbytes.functional" in sys.modules:
        yield
        return
    from peft.tuners.lora import model as peft_layers

    layers: Any = peft_layers
    asked = layers.is_bnb_available, layers.is_bnb_4bit_available
    layers.is_bnb_available = layers.is_bnb_4bit_available = lambda: False
    try:
        yield
    finally:
        layers.is_bnb_available, layers.is_bnb_4bit_available = asked


def has_adapter(model: Any) -> bool:
    """Whether an adapter was put on a model."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def narrow_base(model: Any, dtype: torch.dtype) -> None:
    """Convert the frozen weights to a narrower type; buffers, such as rotary frequencies, keep theirs.

    So do weights that are about to be quantized: these are of a class of their own.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point() and type(parameter) is torch.nn.Parameter:
            parameter.data = parameter.data.to(dtype)
