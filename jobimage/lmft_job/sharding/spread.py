"""Weights that one process of each node has, for all of its processes: exchanged tensor by tensor, on their devices.

The others have the same model on torch's meta device, which has shapes and no memory. What they receive goes to where
the shapes were, in every module that shares it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.distributed as dist

from lmft_job.distributed.world import World

Place = tuple[dict[str, Any], str]
"""A dictionary of a module, and the name in it."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a model, each once.

    Attributes:
        weights: where each weight is, by the weight's identity, in the order of the modules.
        others: the same of buffers, and of tensors that are attributes.
    """

    weights: dict[int, list[Place]] = field(default_factory=dict)
    others: dict[int, list[Place]] = field(default_factory=dict)


def tensors_of(model: Any) -> Tensors:
    """Where a model's tensors are. It holds none of them."""
    found = Tensors()
    for module in model.modules():
        for kind, place in (
            (found.weights, module._parameters),
            (found.others, module._buffers),
            (found.others, vars(module)),
        ):
            for name, value in place.items():
                if isinstance(value, torch.Tensor):
                    kind.setdefault(id(value), []).append((place, name))
    return found


def described(model: Any) -> list[list[Any]]:
    """Names, shapes and types of a model's tensors, as JSON; equal where :class:`Spreading` may exchange them."""
    found = tensors_of(model)
    known = {id(module): name for name, module in model.named_modules()}
    names = {
        id(place): known[id(module)]
        for module in model.modules()
        for place in (module._parameters, module._buffers, vars(module))
    }
    return [
        [
            [f"{names[id(place)]}.{name}" for place, name in places],
            list(places[0][0][places[0][1]].shape),
            str(places[0][0][places[0][1]].dtype),
        ]
        for places in (*found.weights.values(), *found.others.values())
    ]


class Spreading:
    """One process of each node gives its tensors to the others; all processes call it alike.

    Args:
        model: with memory in the first process of each node, and on the meta device in the others.
        world: the processes.
        device: of this process.
    """

    def __init__(self, model: Any, world: World, device: torch.device) -> None:
        self._found, self._device = tensors_of(model), device
        first = world.node * world.local_size
        self._from, self._several, self._group = first, world.local_size > 1, cast(dist.ProcessGroup | None, None)
        if world.nodes > 1 and self._several:
            nodes = [range(node * world.local_size, (node + 1) * world.local_size) for node in range(world.nodes)]
            self._group = cast(dist.ProcessGroup, [dist.new_group(list(ranks)) for ranks in nodes][world.node])

    def buffers(self) -> None:
        """Give what is no weight."""
        for places in self._found.others.values():
            self._give(places)

    def weights(self, wanted: Iterable[Any]) -> list[torch.nn.Parameter]:
        """Give weights; returns what is in their place, in the same order."""
        return [self._give(self._found.weights.pop(id(weight))) for weight in list(wanted)]

    def _give(self, places: list[Place]) -> Any:
        """A tensor with its memory on the device, put wherever the other one was."""
        place, name = places[0]
        old = place[name]
        value = torch.empty_like(old, device=self._device) if old.is_meta else old.detach().to(self._device)
        value = value.contiguous()
        if self._several and value.numel():
            dist.broadcast(value.reshape(-1).view(torch.uint8), src=self._from, group=self._group)
        if isinstance(old, torch.nn.Parameter):
            if old.is_meta:
                value = torch.nn.Parameter(value, old.requires_grad)
            else:
                old.data = value
                value = old
        for place, name in places:
            place[name] = value
        return value
