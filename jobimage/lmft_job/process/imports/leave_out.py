"""What transformers and accelerate import wherever it is installed, and this run does not use, they do without.

They ask a function whether a package is there, and do without it where it is not. Here the answer depends on the run.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from lmft_job.process.imports.compiler import load_part_for_masks

_DIVIDED_TENSORS = "torch.distributed.tensor"


class Unused(StrEnum):
    """What the libraries can do without; the values are the functions with which they ask."""

    ADAPTERS = "is_peft_available"
    """0.3 s; for models with an adapter."""
    DISTRIBUTED = "is_torch_distributed_available"
    """0.8 s with sympy; for weights divided among processes."""


def leave_nothing_out() -> None:
    """Of a process that runs several manifests, one may need what another does not."""
    _Settling.complete = True


def leave_out(unused: Sequence[Unused]) -> None:
    """Have transformers and accelerate, if they are imported after this, do without these."""
    if not any(isinstance(finder, _Settling) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Settling())
    _Settling.unused = () if _Settling.complete else tuple(unused)


class _Settling(MetaPathFinder):
    """Changes a few modules as soon as their code has run, before others import from them."""

    unused: Sequence[Unused] = ()
    complete = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        settle = _SETTLED.get(name)
        spec = PathFinder.find_spec(name, path) if settle else None
        if settle is None or spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module
        spec.loader.exec_module = functools.partial(settle, run)  # type: ignore[method-assign]
        return spec


def _settle_transformers(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    run(module)
    for question in _Settling.unused:
        setattr(module, question, lambda: False)
    # Called for the same folder twice, in which it reads 2,500 files: 0.4 s.
    scan: Callable[[str], Any] = functools.cache(module.create_import_structure_from_path)
    module.create_import_structure_from_path = lambda place: scan(_folder(place))  # type: ignore[attr-defined]


def _folder(place: str | os.PathLike[str]) -> str:
    path = os.fspath(place)
    return os.path.dirname(path) if os.path.isfile(path) else path


def _settle_accelerate(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    run(module)
    for question in (*_Settling.unused, "is_boto3_available"):  # it imports boto3 to configure SageMaker
        setattr(module, question, lambda: False)


def _settle_masks(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    load_part_for_masks()
    run(module)


def _settle_question(question: str, run: Callable[[ModuleType], None], module: ModuleType) -> None:
    """It asks whether weights are divided tensors, whose class takes 0.8 s to import; before that, none is."""
    run(module)
    ask = getattr(module, question)
    setattr(module, question, lambda asked: _DIVIDED_TENSORS in sys.modules and ask(asked))


def _settle_clipping(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    """It asks the same of gradients."""
    run(module)
    clip = module.Accelerator._clip_grad_norm_dtensor_aware

    @functools.wraps(clip)
    def clip_plain(self: Any, parameters: Any, max_norm: float, norm_type: float = 2) -> Any:
        if _DIVIDED_TENSORS in sys.modules:
            return clip(self, parameters, max_norm, norm_type)
        return module.torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)

    module.Accelerator._clip_grad_norm_dtensor_aware = clip_plain


class _WhereTensorsAreDivided:
    """True once the class of divided tensors is imported; before that, no weight is one."""

    def __bool__(self) -> bool:
        return _DIVIDED_TENSORS in sys.modules


def _settle_adapters(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    """It reads that class from torch for each linear layer, and counts on others to have imported it."""
    run(module)
    if module._torch_supports_distributed:
        module._torch_supports_distributed = _WhereTensorsAreDivided()  # type: ignore[attr-defined]


_Run = Callable[[ModuleType], None]
_SETTLED: dict[str, Callable[[_Run, ModuleType], None]] = {
    "transformers.utils.import_utils": _settle_transformers,
    "transformers.masking_utils": _settle_masks,
    "transformers.trainer_optimizer": functools.partial(_settle_question, "has_mixed_dtensor"),
    "accelerate.utils.imports": _settle_accelerate,
    "accelerate.utils.other": functools.partial(_settle_question, "model_has_dtensor"),
    "accelerate.accelerator": _settle_clipping,
    "peft.tuners.tuners_utils": _settle_adapters,
}


@contextmanager
def without_collections() -> Iterator[None]:
    """Within it, no garbage is collected: imports make a million objects, which stay.

    Later collections pass over them.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()
