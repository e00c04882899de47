"""The optimizer's state of divided weights: into parts, and from parts or a whole file into any number of processes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lmft_job.sharding.divide import placed_like, share_held, trained_weights
from lmft_job.sharding.files import OPTIMIZER, Shards, UnfitShardsError

GROUPS = "optimizer_groups.pt"
"""File with the learning rate and the other settings of each group of weights: plain values, by ``torch.save``."""

State = dict[str, Any]


def _names(model: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's weights, in its order."""
    known = {id(weight): name for name, weight in trained_weights(model).items()}
    return [known[id(weight)] for group in optimizer.param_groups for weight in group["params"]]


def tensors_of(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of every weight, by ``optimizer.<name of the weight>.<name in the state>``."""
    weights = trained_weights(model)
    return {
        f"{OPTIMIZER}{name}.{key}": value
        for name in _names(model, optimizer)
        for key, value in optimizer.state.get(weights[name], {}).items()
        if isinstance(value, torch.Tensor)
    }


def groups_of(optimizer: torch.optim.Optimizer) -> State:
    """The settings of each group, with the numbers of its weights: what :data:`GROUPS` holds."""
    return {"param_groups": optimizer.state_dict()["param_groups"]}


def require_state(groups: State, model: Any, folder: Path) -> None:
    """Check that the parts of a checkpoint hold the state of this model's weights, this process's rows of it.

    Args:
        groups: content of :data:`GROUPS`.
        model: whose weights are trained.
        folder: the checkpoint.

    Raises:
        UnfitShardsError: they do not.
    """
    weights = trained_weights(model)
    try:
        count = sum(len(group["params"]) for group in groups["param_groups"])
    except (LookupError, TypeError) as error:
        raise UnfitShardsError(f"{GROUPS} holds no groups") from error
    if count != len(weights):
        raise UnfitShardsError(f"it is of {count} weights and not {len(weights)}")
    with Shards(folder) as stored:
        for name in stored.names(OPTIMIZER):
            weight, _, _ = name.removeprefix(OPTIMIZER).rpartition(".")
            if weight not in weights:
                raise UnfitShardsError(f"the model has no {weight}")
            _part(stored, name, weights[weight])


def load_parts(model: Any, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Give an optimizer the state in the parts of a checkpoint.

    Raises:
        UnfitShardsError: it is of another model.
    """
    groups = torch.load(folder / GROUPS, weights_only=True)["param_groups"]
    with Shards(folder) as stored:
        keys: dict[str, list[str]] = {}
        for name in stored.names(OPTIMIZER):
            weight, _, key = name.removeprefix(OPTIMIZER).rpartition(".")
            keys.setdefault(weight, []).append(key)

        def state_of(name: str, weight: torch.Tensor) -> State:
            return {key: _part(stored, f"{OPTIMIZER}{name}.{key}", weight) for key in keys.get(name, ())}

        _load(model, optimizer, groups, state_of)


def _part(stored: Shards, name: str, weight: torch.Tensor) -> torch.Tensor:
    """This process's rows of a state of the weight's shape; a count of steps, or another shape, whole."""
    if weight.dim() and stored.like_rows_of(name, weight):
        return placed_like(weight, stored.part_of(name, weight))
    return stored.whole(name)


def load_whole(model: Any, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give the optimizer of a divided model the state of an undivided one, as ``optimizer.state_dict()`` has it."""
    numbers = {name: number for number, name in enumerate(_names(model, optimizer))}

    def state_of(name: str, weight: torch.Tensor) -> State:
        return {key: _rows(value, weight) for key, value in state["state"].get(numbers[name], {}).items()}

    _load(model, optimizer, state["param_groups"], state_of)


def _rows(value: Any, weight: torch.Tensor) -> Any:
    """This process's rows of a tensor of the weight's shape; any other value as it is."""
    if not isinstance(value, torch.Tensor) or not value.dim() or value.shape != weight.shape:
        return value
    first, end = share_held(weight).rows(weight.shape[0])
    return placed_like(weight, value[first:end].to(weight.device, copy=True))


def _load(
    model: Any,
    optimizer: torch.optim.Optimizer,
    groups: list[State],
    state_of: Callable[[str, torch.Tensor], State],
) -> None:
    names, weights = _names(model, optimizer), trained_weights(model)
    if sum(len(group["params"]) for group in groups) != len(names):
        raise UnfitShardsError("the optimizer's state is of another model")
    found = {number: state for number, name in enumerate(names) if (state := state_of(name, weights[name]))}
    optimizer.load_state_dict({"state": found, "param_groups": groups})
