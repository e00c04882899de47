"""Tensors with a shape, a type and a device, and no memory.

What an operation gives, torch's fake tensors know. They are slow, for they tell a compiler more than is wanted here;
layers ask the same of them again and again. So each question goes to them once, and the answers are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

_DEVICE = torch.device("cpu")
_ATEN = torch.ops.aten
_FLASH_ATTENTION = _ATEN._scaled_dot_product_flash_attention_for_cpu.default
_PRODUCTS = frozenset({_ATEN.mm.default, _ATEN.bmm.default, _ATEN.addmm.default})


class Layout(NamedTuple):
    """How a tensor lies in its storage; strides and offset count numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class Storage:
    """What a tensor and its views share.

    Attributes:
        size: bytes.
        purpose: what it is counted as; empty if it is not.
        freed: called when the last of its tensors is gone.
    """

    __slots__ = ("freed", "purpose", "size")

    def __init__(self, size: int) -> None:
        self.size, self.purpose = size, ""
        self.freed: Callable[[Storage], None] | None = None

    def __del__(self) -> None:
        if self.freed is not None:
            self.freed(self)


class HollowTensor(torch.Tensor):
    """A tensor without memory. What asks for its device hears of a CPU; only a trial's mode can compute with it.

    Attributes:
        layout_: how it lies in its storage.
        storage_: shared with its views.
    """

    layout_: Layout
    storage_: Storage
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Nothing that is computed outside of a trial has a value."""
        raise RuntimeError(f"{func} of a tensor without memory")


def _hollow(layout: Layout, storage: Storage) -> HollowTensor:
    shape, stride, offset, dtype = layout
    made: HollowTensor = torch.Tensor._make_wrapper_subclass(
        HollowTensor, shape, stride, offset, torch.contiguous_format, dtype, torch.strided, _DEVICE
    )
    made.layout_, made.storage_ = layout, storage
    return made


@dataclass(frozen=True)
class _Result:
    """A tensor that an operation gives.

    Attributes:
        layout: how it lies in its storage.
        size: bytes of its storage, where that is new.
        given: number of the tensor among those given whose storage it has; None if that is new.
        itself: whether it is that tensor.
    """

    layout: Layout
    size: int
    given: int | None = None
    itself: bool = False

    def made(self, given: list[HollowTensor]) -> HollowTensor:
        """It, of an operation on the tensors given."""
        if self.given is None:
            return _hollow(self.layout, Storage(self.size))
        return given[self.given] if self.itself else _hollow(self.layout, given[self.given].storage_)


@dataclass(frozen=True)
class _Answer:
    """What an operation gives: tensors as :class:`_Result`, all else as it is. ``spec`` is None for one tensor."""

    leaves: list[Any]
    spec: TreeSpec | None

    def made(self, given: list[HollowTensor]) -> Any:
        """Its results, of an operation on the tensors given."""
        if self.spec is None:
            return self.leaves[0].made(given)
        return tree_unflatten([one.made(given) if type(one) is _Result else one for one in self.leaves], self.spec)


class Rules:
    """What operations give, by what they are given; to be kept as long as questions may come again."""

    def __init__(self) -> None:
        self._known: dict[Any, _Answer] = {}
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._fake.cache_enabled = False

    def apply(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The results of an operation, as hollow tensors.

        Raises:
            Exception: whatever it raises for such arguments, as where a shape depends on values.
        """
        if not func._schema.returns:
            return None  # as of optimisers' steps: only values change
        given: list[HollowTensor] = []
        try:
            question = func, _asked(args, given), _asked(kwargs, given) if kwargs else None
        except _UnknownError:
            given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, HollowTensor)]
            return self._ask(func, args, kwargs or {}, given).made(given)
        answer = self._known.get(question)
        if answer is None:
            answer = self._known[question] = self._ask(func, args, kwargs or {}, given)
        return answer.made(given)

    def _ask(self, func: Any, args: Any, kwargs: Any, given: list[HollowTensor]) -> _Answer:
        """The answer of torch: of its own kernels for shapes where these do not depend on the device, else fake."""
        plain = bool(given) and (func.is_view or torch.Tag.pointwise in func.tags or func in _PRODUCTS)
        stand_ins = {
            id(one): _on_meta(one) if plain else FakeTensor(self._fake, _on_meta(one), _DEVICE) for one in given
        }
        args, kwargs = tree_map(lambda one: stand_ins.get(id(one), one), (args, kwargs))
        if plain:
            result = func(*args, **kwargs)
        else:
            with self._fake:
                result = func(*args, **kwargs)
        places = {id(stand_ins[id(one)]): number for number, one in enumerate(given)}
        storages = {_storage_of(stand_ins[id(one)]): number for number, one in enumerate(given)}

        def described(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            layout = Layout(tuple(value.shape), value.stride(), int(value.storage_offset()), value.dtype)
            if (place := places.get(id(value))) is None:
                return _Result(layout, value.untyped_storage().nbytes(), storages.get(_storage_of(value)))
            if layout != given[place].layout_:
                raise NotImplementedError(f"{func} changes the shape of a tensor in place")
            return _Result(layout, 0, place, itself=True)

        leaves, spec = tree_flatten(result)
        leaves = [described(one) for one in leaves]
        if func is _FLASH_ATTENTION:
            leaves[0] = _as_kernels_lay_out(leaves[0])
        return _Answer(leaves, None if isinstance(result, torch.Tensor) else spec)


class _UnknownError(Exception):
    """An argument that does not tell what it holds, such as a tensor with values."""


_CONSTANTS = (str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))


def _asked(value: Any, given: list[HollowTensor]) -> Any:
    """Arguments as part of a question; the tensors among them are added to those given."""
    if isinstance(value, HollowTensor):
        given.append(value)
        return value.layout_
    if isinstance(value, (tuple, list)):
        return tuple([_asked(one, given) for one in value])
    if isinstance(value, (int, float)):
        return type(value), value  # 1, 1.0 and True are equal, and give different types
    if isinstance(value, _CONSTANTS):
        return value
    if isinstance(value, dict):
        return tuple([(name, _asked(one, given)) for name, one in value.items()])
    raise _UnknownError(type(value))


def _on_meta(tensor: HollowTensor) -> torch.Tensor:
    shape, stride, offset, dtype = tensor.layout_
    whole = torch.empty(tensor.storage_.size // dtype.itemsize, dtype=dtype, device="meta")
    return whole.as_strided(shape, stride, offset)


def _storage_of(tensor: torch.Tensor) -> int:
    number: int = tensor.untyped_storage()._cdata
    return number


def _as_kernels_lay_out(attended: _Result) -> _Result:
    """Attention's result (batch, heads, length, size) as kernels leave it: a view of (batch, length, heads, size).

    So that a model that joins the heads copies nothing. torch's rule for fake tensors gives it the query's layout.
    """
    layout = attended.layout
    _, heads, length, size = layout.shape
    stride = (heads * length * size, size, heads * size, 1)
    return _Result(layout._replace(stride=stride, offset=0), attended.size)
