"""Counts the bytes of tensors that are alive while code runs, by what they are for."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmft_job.memory.parts import Parts

ACTIVATIONS, LOGITS = "activations", "logits"


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, every operation's results are counted until they are freed; views share the bytes of their storage.

    Args:
        vocabulary: size of the last dimension of logits; 0 for a model without.
        positions: rows times tokens of a batch: a tensor with as many positions and the vocabulary holds logits.
    """

    def __init__(self, vocabulary: int, positions: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._vocabulary, self._positions = vocabulary, positions
        self._live: Counter[str] = Counter()
        self._total = 0
        self._seen: dict[int, tuple[weakref.ref[Any], int, str]] = {}
        self._most, self._peak = -1, Parts()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap every operation once more, for a compiler that is not used here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count its results."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # two thirds of all calls: kept out of the fake mode's own dispatch
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.0 if args[0].is_floating_point() else 0  # a fake tensor has no value: flags are unset
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            result = (_as_kernels_lay_out(result[0]), *result[1:])
        for tensor in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor, self._purpose(tensor))
        return result

    def assign(self, tensors: Iterable[torch.Tensor], purpose: str) -> None:
        """Count existing tensors, or count those known already, as what they are for."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if (known := self._seen.get(key)) is None or known[0]() is None:
                self._count(tensor, purpose)
                continue
            reference, size, before = known
            self._live[before] -= size
            self._live[purpose] += size
            self._seen[key] = reference, size, purpose

    def take_peak(self) -> Parts:
        """The busiest moment since the last call."""
        peak, self._most = self._peak, -1
        self._note()
        return peak

    def _purpose(self, tensor: torch.Tensor) -> str:
        large = tensor.numel() >= self._positions // 2 * self._vocabulary
        return LOGITS if self._vocabulary and large and tensor.shape[-1:] == (self._vocabulary,) else ACTIVATIONS

    def _count(self, tensor: torch.Tensor, purpose: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._seen.get(key)
        if known is not None and known[0]() is not None:
            return
        size = storage.nbytes()

        def freed(reference: Any) -> None:
            found = self._seen.get(key)
            if found is not None and found[0] is reference:
                del self._seen[key]
                self._live[found[2]] -= found[1]
                self._total -= found[1]

        self._seen[key] = weakref.ref(storage, freed), size, purpose
        self._live[purpose] += size
        self._total += size
        if self._total > self._most:
            self._note()

    def _note(self) -> None:
        self._most = self._total
        self._peak = Parts(**self._live)


def _as_kernels_lay_out(attended: torch.Tensor) -> torch.Tensor:
    """Attention's result (batch, heads, length, size) as kernels leave it: a view of (batch, length, heads, size).

    So that a model that joins the heads copies nothing. torch's rule for fake tensors gives it the query's layout.
    """
    batch, heads, length, size = attended.shape
    return attended.new_empty((batch, length, heads, size)).transpose(1, 2)
