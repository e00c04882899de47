"""Divides a model's weights among processes by torch's FSDP2 (``fully_shard``), and puts them together again.

Each process holds an equal share of the rows of every weight. A layer's weights are gathered for its forward and its
backward pass, and dropped after each, so that between two passes nobody holds more than its share. Small layers are
gathered together, and what the backward pass begins with is held until then.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from lmft_api.text.wording import first_line
from lmft_job.distributed.world import World
from lmft_job.errors import InvalidError
from lmft_job.sharding.classes import DTensor, FSDPModule
from lmft_job.sharding.share import WHOLE, Share
from lmft_job.sharding.spread import Spreading

AT_ONCE = 16 * 2**20
"""Weights that are gathered in one exchange, at least: 64 MiB in FP32. Of fewer, the exchange itself takes longest."""
_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict)
"""What has no forward pass of its own, at which weights could be gathered."""


def divide(
    model: Any,
    world: World,
    device: torch.device,
    *,
    within_nodes: bool,
    kept: Iterable[Any] = (),
    at_once: int = AT_ONCE,
) -> None:
    """Divide a model in place; all processes call it, with the same weights.

    The first process of each node gives them to the others, one group of layers after the other, so that these hold
    no more than their share and one group.

    Args:
        model: on the CPU; but for the first process of a node it may be on the meta device.
        world: the processes.
        device: of this process.
        within_nodes: whether each node holds all parts; else all processes together do.
        kept: weights that every process keeps whole, such as an adapter's.
        at_once: weights that are gathered in one exchange, at least.

    Raises:
        InvalidError: torch cannot divide this model.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if within_nodes:
        mesh = init_device_mesh(device.type, (world.nodes, world.local_size), mesh_dim_names=("copies", "parts"))
    else:
        mesh = init_device_mesh(device.type, (world.size,), mesh_dim_names=("parts",))
    spreading, groups = Spreading(model, world, device), _groups(model, at_once)
    whole = spreading.weights(kept)  # in the same order everywhere
    for parameter in whole:
        dist.broadcast(parameter.data, src=0)
    ignored = set(whole)
    spreading.buffers()
    try:
        for group in groups:
            spreading.weights(_own([weight for layer in group for weight in layer.parameters()], ignored))
            fully_shard(group, mesh=mesh, reshard_after_forward=group is not groups[-1], ignored_params=ignored)
        # It takes what no layer has; with it and the last layers the backward pass begins.
        spreading.weights(_own(model.parameters(), ignored))
        fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=ignored)
    except (ValueError, NotImplementedError, RuntimeError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InvalidError(
            [f"spec.training.parallelism: FSDP cannot divide this model ({first_line(error)}); take DDP"]
        ) from error
    _drop_without_backward(model, [*(group[0] for group in groups[-1:]), model])
    # Trainer and generation ask for these: nobody is to wrap the model again, and all generate equally long.
    model._is_distributed_loading_by_transformers = True
    model._is_fsdp_managed_module = True


def _own(weights: Iterable[Any], ignored: set[Any]) -> list[Any]:
    """Those that are to be divided and are not yet, each once."""
    return list(dict.fromkeys(one for one in weights if one not in ignored and not isinstance(one, DTensor)))


def _drop_without_backward(model: Any, held: list[Any]) -> None:
    """After a forward pass that no backward pass follows, as of an evaluation, drop what is else held until that."""

    def drop(*_: Any) -> None:
        if not torch.is_grad_enabled():
            for module in held:
                module.reshard()

    model.register_forward_hook(drop)


def _groups(model: Any, at_once: int) -> list[list[torch.nn.Module]]:
    """Layers that are gathered together, in their order; none where all of the model is."""
    if sum(weight.numel() for weight in model.parameters()) <= at_once:
        return []
    groups: list[list[torch.nn.Module]] = []
    size = at_once
    for layer in _layers(model):
        if size >= at_once:
            groups.append([])
            size = 0
        groups[-1].append(layer)
        size += sum(weight.numel() for weight in layer.parameters())
    return groups


def _layers(model: Any) -> list[torch.nn.Module]:
    """The layers of a model: what its outermost lists of modules hold, or lists in these.

    One whose weights are used outside of it too, as tied embeddings are, is left to the rest of the model: shared
    weights have to be gathered at one time.
    """
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    found: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        within = any(name.startswith(f"{layer}.") for layer in found)
        if isinstance(module, torch.nn.ModuleList) and not within:
            found |= {
                f"{name}.{number}": layer for number, layer in enumerate(module) if not isinstance(layer, _CONTAINERS)
            }

    def alone(name: str, layer: torch.nn.Module) -> bool:
        used = [place for parameter in layer.parameters() for place in places[id(parameter)]]
        return bool(used) and all(place.startswith(f"{name}.") for place in used)

    return [layer for name, layer in found.items() if alone(name, layer)]


def is_divided(model: Any) -> bool:
    """Whether its weights are divided among processes."""
    return isinstance(model, FSDPModule)


def plain_class(model: Any) -> Any:
    """The class of a model before it was divided."""
    return type(model).__mro__[2] if is_divided(model) else type(model)


def trains_divided(model: Any) -> bool:
    """Whether the weights that are trained are divided; an adapter's are not."""
    return is_divided(model) and any(
        isinstance(parameter, DTensor) for parameter in model.parameters() if parameter.requires_grad
    )


def trained_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights that training changes, by name; shared ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def share_held(weight: torch.Tensor) -> Share:
    """Which of a tensor's rows this process holds, by how it is divided."""
    if not isinstance(weight, DTensor):
        return WHOLE
    mesh = weight.device_mesh
    copy_number = mesh.get_local_rank(0) if mesh.ndim > 1 else 0
    return Share(mesh.get_local_rank(mesh.ndim - 1), mesh.size(mesh.ndim - 1), copy_number)


def share_of_model(model: Any) -> Share:
    """Which of a model's divided weights this process holds."""
    return next((share_held(weight) for weight in model.parameters() if isinstance(weight, DTensor)), WHOLE)


def local(value: torch.Tensor) -> torch.Tensor:
    """This process's rows of a divided tensor; any other as it is. Shares its memory."""
    found: Any = value.detach()
    rows: torch.Tensor = found.to_local() if isinstance(value, DTensor) else found
    return rows


def fill(model: Any, values: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Give a divided model this process's rows of whole weights; names that it lacks are passed over."""
    known = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, value in values:
            if name not in known:
                continue
            weight = known[name]
            if weight.shape != value.shape:
                raise ValueError(f"{name} is {tuple(value.shape)} and not {tuple(weight.shape)}")
            if isinstance(weight, DTensor):
                first, end = share_held(weight).rows(weight.shape[0])
                value = value[first:end]
            local(weight).copy_(value)


def placed_like(parameter: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """This process's rows of a tensor of a parameter's shape, as a tensor divided in the same way."""
    if not isinstance(parameter, DTensor):
        return rows
    from torch.distributed import tensor as divided

    return divided.DTensor.from_local(
        rows, parameter.device_mesh, parameter.placements, run_check=False,
        shape=parameter.shape, stride=parameter.stride(),
    )  # fmt: skip


def outline(model: Any) -> Any:
    """A copy of a model without its weights, to be filled by :func:`assemble`; call it before :func:`divide`."""
    memo: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def assemble(model: Any, blank: Any, world: World) -> Any | None:
    """The whole of a divided model on the CPU of rank 0; None in the others. All processes call it.

    Args:
        model: divided.
        blank: its outline; becomes the whole.
        world: the processes.
    """
    made: dict[int, torch.nn.Parameter] = {}
    weights = dict(model.named_parameters())
    for name, empty in blank.named_parameters():
        value = weights[name].detach()
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if world.main:
            made[id(empty)] = torch.nn.Parameter(whole.cpu().clone(), empty.requires_grad)
    if not world.main:
        return None
    for module in blank.modules():
        for name, empty in list(module._parameters.items()):
            if empty is not None:
                module._parameters[name] = made[id(empty)]
    for name, buffer in model.named_buffers():
        owner, _, last = name.rpartition(".")
        blank.get_submodule(owner)._buffers[last] = buffer.detach().cpu()
    return blank


def average_gradients(parameters: Iterable[torch.Tensor], world: World) -> None:
    """Replace the gradients of weights that every process holds whole by their mean over all, in one exchange."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not found:
        return
    flat = torch.cat([gradient.flatten() for gradient in found])
    dist.all_reduce(flat)
    flat /= world.size
    means = torch.split(flat, [gradient.numel() for gradient in found])
    for gradient, mean in zip(found, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
