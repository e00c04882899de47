"""A module whose code runs when something asks for one of its names, not when others import it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """The module before its code has run; then it is a plain one.

    :class:`importlib.util.LazyLoader` does not help here: ``import name`` reads ``__spec__``, which makes it load.
    """

    def __getattr__(self, name: str) -> Any:
        answers: Mapping[str, Any] = self.__dict__.get("_answers", {})
        if name in answers:
            return answers[name]
        # Others are asked of every module by warnings and debuggers; the path by imports of modules in a package.
        asked_of_every_module = name.startswith("__") and name not in ("__version__", "__path__")
        if asked_of_every_module or "_run" not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self._run()
        return getattr(self, name)


class _ImportedMeanwhile(MetaPathFinder, Loader):
    """Keeps a module from being imported twice.

    An import of ``package.part`` asks a deferred package for its path, and the package's code runs. It may import the
    part; the first import would continue, and do so again.
    """

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = sys.modules.get(name)
        if found is None or target is not None:  # a target is reloaded
            return None
        self._specs[name] = found.__spec__
        return ModuleSpec(name, self, is_package=hasattr(found, "__path__"))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._specs.pop(module.__name__)


def defer(
    name: str,
    answers: Mapping[str, Any] | None = None,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    after: Callable[[ModuleType], None] = lambda module: None,
) -> None:
    """Register a module, if it is installed and was not imported before. No package that it is in is imported.

    Args:
        name: of the module.
        answers: names that are answered without running its code.
        around: context in which its code runs.
        after: takes the module once its code has run.
    """
    spec, places = None, None
    for depth in range(1, name.count(".") + 2):
        spec = PathFinder.find_spec(".".join(name.split(".")[:depth]), places)
        if spec is None or name in sys.modules:
            return
        places = spec.submodule_search_locations
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, module_from_spec(spec)

    def run() -> None:
        module.__class__ = ModuleType
        del module._answers, module._run
        if places is not None:
            module.__path__ = places
        with around():
            loader.exec_module(module)
        after(module)

    if not any(isinstance(finder, _ImportedMeanwhile) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportedMeanwhile())
    module.__class__ = Deferred
    module.__dict__.pop("__path__", None)
    module._answers, module._run = answers or {}, run  # type: ignore[attr-defined]
    sys.modules[name] = module
