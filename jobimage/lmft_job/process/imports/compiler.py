"""torch.compile's machinery, 0.9 s of imports, waits until something is compiled.

transformers, accelerate and torch's optimizers import it to mark functions and lines for it, or to ask whether a module
is compiled. While its code has not run nothing is, and the marks are kept for it.
"""

import functools
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from lmft_job.process.imports.deferred import Deferred, defer

NAME = "torch._dynamo"
_PART = "_trace_wrapped_higher_order_op"


class _NeverCompiled:
    """Stands for the class of compiled modules: there is none."""


class _Marks:
    """Functions that were marked before the machinery was there."""

    def __init__(self) -> None:
        self._allowed: list[Any] = []
        self._machinery: ModuleType | None = None

    def answers(self) -> dict[str, Any]:
        """What is answered without the machinery."""
        return {
            "disable": self.disable,
            "assume_constant_result": self.assume_constant_result,
            "allow_in_graph": self.allow_in_graph,
            "graph_break": lambda msg="": None,
            "eval_frame": SimpleNamespace(OptimizedModule=_NeverCompiled),
        }

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Mark a function not to be compiled: a plain call as long as nothing could compile it."""
        if fn is None:
            return functools.partial(self.disable, recursive=recursive, **options)
        if not isinstance(fn, FunctionType):
            return sys.modules[NAME].decorators.disable(fn, recursive, **options)  # has its code run
        disabled: list[Callable[..., Any]] = []

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._machinery is None:
                return fn(*args, **kwargs)
            if not disabled:
                disabled.append(self._machinery.disable(fn, recursive, **options))
            return disabled[0](*args, **kwargs)

        call._torchdynamo_disable = True  # type: ignore[attr-defined]
        return call

    def assume_constant_result(self, fn: Any) -> Any:
        """Mark a function as constant, as the machinery does."""
        fn._dynamo_marked_constant = True
        return fn

    def allow_in_graph(self, fn: Any) -> Any:
        """Mark functions to be kept as they are."""
        self._allowed.append(fn)
        return list(fn) if isinstance(fn, list | tuple) else fn

    def hand_over(self, machinery: ModuleType) -> None:
        """Its code has run."""
        self._machinery = machinery
        machinery.allow_in_graph(self._allowed)


def defer_compiler() -> None:
    """Have it wait, if it was not imported before."""
    marks = _Marks()
    defer(NAME, marks.answers(), after=marks.hand_over)


def load_part_for_masks() -> None:
    """Load the part of it that transformers' attention masks are made with; it needs none of the rest."""
    compiler, name = sys.modules.get(NAME), f"{NAME}.{_PART}"
    if not isinstance(compiler, Deferred) or compiler.__file__ is None:
        return
    spec = spec_from_file_location(name, Path(compiler.__file__).with_name(f"{_PART}.py"))
    if spec is None or spec.loader is None:
        return
    part = module_from_spec(spec)
    sys.modules[name] = part
    spec.loader.exec_module(part)
    setattr(compiler, _PART, part)
