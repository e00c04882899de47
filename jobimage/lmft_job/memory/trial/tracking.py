"""Counts the bytes of tensors that are alive while code runs, by what they are for."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmft_job.memory.parts import Parts
from lmft_job.memory.trial.hollow import HollowTensor, Rules, Storage

ACTIVATIONS, LOGITS = "activations", "logits"


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, every operation gives tensors without memory, whose bytes are counted until they are freed.

    Args:
        rules: what operations give.
        vocabulary: size of the last dimension of logits; 0 for a model without.
        positions: rows times tokens of a batch: a tensor with as many positions and the vocabulary holds logits.
    """

    def __init__(self, rules: Rules, vocabulary: int, positions: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rules, self._vocabulary, self._positions = rules, vocabulary, positions
        self._live: Counter[str] = Counter()
        self._total = 0
        self._most, self._peak = -1, Parts()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap every operation once more, for a compiler that is not used here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Find what the operation gives, and count it."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.0 if args[0].is_floating_point() else 0  # it has no value: flags are unset
        result = self._rules.apply(func, args, kwargs)
        for tensor in (result,) if type(result) is HollowTensor else tree_leaves(result):
            if type(tensor) is HollowTensor and not tensor.storage_.purpose:
                self._count(tensor.storage_, self._purpose(tensor))
        return result

    def assign(self, tensors: Iterable[Any], purpose: str) -> None:
        """Count existing tensors, which are hollow, as what they are for."""
        for tensor in tensors:
            storage = tensor.storage_
            self._live[storage.purpose] -= storage.size
            self._live[purpose] += storage.size
            storage.purpose = purpose

    def take_peak(self) -> Parts:
        """The busiest moment since the last call."""
        peak, self._most = self._peak, -1
        self._note()
        return peak

    def _purpose(self, tensor: torch.Tensor) -> str:
        large = tensor.numel() >= self._positions // 2 * self._vocabulary
        return LOGITS if self._vocabulary and large and tensor.shape[-1:] == (self._vocabulary,) else ACTIVATIONS

    def _count(self, storage: Storage, purpose: str) -> None:
        storage.purpose, storage.freed = purpose, self._forget
        self._live[purpose] += storage.size
        self._total += storage.size
        if self._total > self._most:
            self._note()

    def _forget(self, storage: Storage) -> None:
        self._live[storage.purpose] -= storage.size
        self._total -= storage.size

    def _note(self) -> None:
        self._most = self._total
        self._peak = Parts(**self._live)
