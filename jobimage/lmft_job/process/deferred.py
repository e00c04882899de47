"""Modules that are imported when they are first used, although a library imports them when it is imported itself."""

import importlib.util
import sys
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
        asked_of_every_module = name.startswith("__") and name != "__version__"  # by warnings and debuggers
        if loader is None or asked_of_every_module:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        loader.exec_module(self)
        return getattr(self, name)


def defer_slow_imports() -> None:
    """Register the slow modules that are installed; call it before transformers is imported."""
    for name in SLOW:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = _Deferred
            sys.modules[name] = module
