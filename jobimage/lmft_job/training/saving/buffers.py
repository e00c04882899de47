"""A copy of tensors in the host's memory, which another thread writes while training changes the originals.

What is copied are storages, each once, so that tensors that share one still do, and ``torch.save`` and safetensors
write the same bytes as of the originals.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def storages_of(tree: Any) -> dict[int, torch.UntypedStorage]:
    """The storages of all tensors in nested containers, each once, by its identity and in order."""
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in _tensors(tree)}


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


class HostBuffers:
    """Buffers that are kept from one copy to the next; of a GPU's memory they are pinned, so that it copies by itself.

    The copy before must no longer be in use when the next is made.
    """

    def __init__(self) -> None:
        self._held: list[torch.Tensor] = []

    def lacking(self, tree: Any) -> int:
        """Bytes of memory that a copy would allocate."""
        found = enumerate(storages_of(tree).values())
        return sum(_allocated(storage) for number, storage in found if self._fitting(number, storage) is None)

    def copy(self, tree: Any) -> Any:
        """The same containers with copies of the tensors; returns once they are complete.

        Args:
            tree: tensors in dictionaries, lists and tuples; other values are copied as :func:`copy.deepcopy` does.

        Raises:
            MemoryError: the memory is not there.
        """
        storages = storages_of(tree)
        self._reserve(list(storages.values()))
        devices = set()
        for buffer, storage in zip(self._held, storages.values(), strict=True):
            buffer.copy_(_bytes_of(storage), non_blocking=True)
            devices.add(storage.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return _rebuilt(tree, dict(zip(storages, self._held, strict=True)), {})

    def release(self) -> None:
        """Give the memory back, once nobody uses the copy any more."""
        self._held.clear()

    def _fitting(self, number: int, storage: torch.UntypedStorage) -> torch.Tensor | None:
        held = self._held[number] if number < len(self._held) else None
        return held if held is not None and held.numel() == storage.nbytes() else None

    def _reserve(self, storages: list[torch.UntypedStorage]) -> None:
        found = [self._fitting(number, storage) for number, storage in enumerate(storages)]
        self._held = [held for held in found if held is not None]  # what does not fit goes before more is taken
        try:
            self._held = [
                _allocate(storage) if held is None else held for held, storage in zip(found, storages, strict=True)
            ]
        except RuntimeError as error:  # torch's own word for it, of the host's memory and of pinned memory
            self.release()
            raise MemoryError(str(error)) from error


def _allocated(storage: torch.UntypedStorage) -> int:
    """Bytes that a buffer takes: torch rounds pinned ones up to a power of two."""
    size = storage.nbytes()
    return 1 << (size - 1).bit_length() if size and _pins(storage) else size


def _pins(storage: torch.UntypedStorage) -> bool:
    return storage.device.type == "cuda"


def _allocate(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=_pins(storage))


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _rebuilt(tree: Any, copies: Mapping[int, torch.Tensor], made: dict[int, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        if id(tree) not in made:  # one that stands in two places is written once
            held = copies[tree.untyped_storage()._cdata].untyped_storage()
            blank = torch.empty(0, dtype=tree.dtype)
            made[id(tree)] = blank.set_(held, tree.storage_offset(), tree.size(), tree.stride())
        return made[id(tree)]
    if isinstance(tree, Mapping):
        items = {key: _rebuilt(value, copies, made) for key, value in tree.items()}
        return OrderedDict(items) if isinstance(tree, OrderedDict) else items
    if isinstance(tree, list):
        return [_rebuilt(value, copies, made) for value in tree]
    if isinstance(tree, tuple) and any(True for _ in _tensors(tree)):
        return tuple(_rebuilt(value, copies, made) for value in tree)
    return copy.deepcopy(tree)  # numbers and texts are themselves
