"""Modules that are imported when they are first used, although a library imports them when it is imported itself."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SLOW = ("bitsandbytes",)
"""transformers imports peft where it is installed, and peft imports bitsandbytes: 3 s, for quantization alone."""


class _Deferred(ModuleType):
    """A module whose code runs when something asks for one of its names.

    :class:`importlib.util.LazyLoader` does not help here: ``import name`` reads ``__spec__``, which makes it load.
    """

    def __getattr__(self, name: str) -> Any:
        loader = self.__spec__.loader if self.__spec__ else None
        # Others are asked of every module by warnings and debuggers; the path by imports of modules in a package.
        asked_of_every_module = name.startswith("__") and name not in ("__version__", "__path__")
        if loader is None or asked_of_every_module:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ and self.__spec__.submodule_search_locations is not None:
            self.__path__ = self.__spec__.submodule_search_locations
        with _without_hub_kernels(self.__name__):
            loader.exec_module(self)
        return getattr(self, name)


_NO_KERNELS = "Failed to load CPU gemm_4bit_forward"


@contextmanager
def _without_hub_kernels(name: str) -> Iterator[None]:
    """Within it, an import asks no hub for compiled kernels, and does not warn that it has none; other warnings pass.

    bitsandbytes would fetch a kernel for inference on CPUs, which training does not use.
    """

    def other(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_NO_KERNELS)

    hidden, logger = "kernels" not in sys.modules, logging.getLogger(f"{name}.backends.cpu.ops")
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
        if hidden:
            del sys.modules["kernels"]


def defer_slow_imports() -> None:
    """Register the slow modules that are installed; call it before transformers is imported."""
    for name in SLOW:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = _Deferred
            module.__dict__.pop("__path__", None)
            sys.modules[name] = module
