"""Which modules of a model an adapter changes, and which it trains as a whole. Neither imports peft nor loads it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from lmft_api.spec.resolved import AdapterSettings
from lmft_api.text.wording import did_you_mean
from lmft_job.errors import InvalidError
from lmft_job.tasks.base import TaskType

_FIELD = "spec.training.adapter.targetModules"
_SHOWN = 12
_FUSED = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Model types whose kernels read the weights of ``out_proj`` without calling it, so that peft refuses an adapter there
(peft 0.21, tuners/tuners_utils.py)."""


@dataclass(frozen=True)
class Targets:
    """Modules by their full names.

    Attributes:
        adapted: linear modules that get matrices beside their weights.
        heads: modules that are trained as a whole, since their weights are fresh or belong to the labels.
        output: the layer that makes logits of tokens; None if there is none.
    """

    adapted: tuple[str, ...]
    heads: tuple[str, ...] = ()
    output: str | None = None

    def shortest(self, model: Any) -> list[str]:
        """Names for adapter_config.json: the last parts, such as q_proj, if these match the same modules."""
        last = {_last(name) for name in self.adapted}
        others = {name for name, _ in model.named_modules() if name} - set(self.adapted)
        return sorted(self.adapted) if any(_last(name) in last for name in others) else sorted(last)


def find_targets(model: Any, task: TaskType, wanted: AdapterSettings, fresh: Collection[str] = ()) -> Targets:
    """The modules that an adapter changes.

    Args:
        model: before it has an adapter.
        task: a classifier's head is trained as a whole.
        wanted: settings of the adapter.
        fresh: names of weights that the checkpoint lacks.

    Raises:
        InvalidError: a name that no linear module has, with the names that there are.
    """
    heads = _heads(model, fresh) if task.has_labels else []
    output = _output_layer(model)
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not _within(name, heads)
    }
    fused = [name for name in linear if _is_fused(model, name)]
    inner = [name for name in linear if name != output and name not in fused]
    if wanted.all_linear:
        if not inner:
            raise InvalidError([f"{_FIELD}: a model of type {model.config.model_type} has no linear modules"])
        return Targets(tuple(inner), tuple(heads), output)
    chosen: dict[str, None] = {}
    problems = []
    for index, name in enumerate(wanted.target_modules):
        found = [full for full in linear if full == name or full.endswith(f".{name}")]
        if output in found and _is_tied(model):
            problems.append(
                f"{_FIELD}[{index}]: {name} is the output layer, whose weights are the input embeddings; remove it"
            )
        elif any(full in fused for full in found):
            problems.append(
                f"{_FIELD}[{index}]: {name} of a model of type {model.config.model_type} takes no adapter: its kernels "
                "read the weights themselves; remove it"
            )
        elif not found:
            problems.append(f"{_FIELD}[{index}]: {_why_none(model, name, linear, heads)}")
        chosen |= dict.fromkeys(found)
    if problems:
        raise InvalidError(problems)
    return Targets(tuple(chosen), tuple(heads), output)


def _is_fused(model: Any, name: str) -> bool:
    return model.config.model_type in _FUSED and _last(name) == "out_proj"


def _why_none(model: Any, name: str, linear: Iterable[str], heads: list[str]) -> str:
    kinds = {type(m).__name__ for full, m in model.named_modules() if full == name or full.endswith(f".{name}")}
    known = sorted({_last(full) for full in linear})
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    has = f"Its linear modules are {shown}"
    if any(_within(full, heads) for full, _ in model.named_modules() if full.endswith(name)):
        return f"{name} is part of the head, which is trained as a whole; remove it"
    if kinds:
        return f"{name} is {', '.join(sorted(kinds))}, not a linear module. {has}"
    hint = did_you_mean(name, known) or "."
    return f"a model of type {model.config.model_type} has no module {name}{hint} {has}"


def _heads(model: Any, fresh: Iterable[str]) -> list[str]:
    """Modules outside of the model's body, and modules whose weights are fresh."""
    body = getattr(model, "base_model_prefix", "")
    found = [
        name
        for name, module in model.named_children()
        if name != body and hasattr(model, body) and any(True for _ in module.parameters())
    ]
    for weight in fresh:
        module = weight.rpartition(".")[0]
        if module and not _within(module, found):
            found.append(module)
    return found


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _output_layer(model: Any) -> str | None:
    """Name of the layer that makes logits of tokens; None if there is none."""
    try:
        output = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, module in model.named_modules() if module is output), None)


def _is_tied(model: Any) -> bool:
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


def _last(name: str) -> str:
    return name.rpartition(".")[2]
