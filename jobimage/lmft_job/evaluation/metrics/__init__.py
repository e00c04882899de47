"""Our metrics in the ``evaluate`` library's module interface; loaded from this folder, never downloaded."""

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def load_metric(name: str) -> Any:
    """An ``evaluate`` module from this package: ``perplexity`` or ``accuracy``.

    ``evaluate.load`` would copy the script into a cache and ask the hub about it first, and then return the module's
    class; so it is created here directly, and works on a read-only disk without network.
    """
    from evaluate.loading import import_main_class

    path = f"lmft_job.evaluation.metrics.{name}.{name}"
    if not (_FOLDER / name / f"{name}.py").is_file():
        raise ValueError(f"there is no built-in metric {name!r}")
    # In memory: the library would otherwise write an Arrow file into a cache for every computation.
    return import_main_class(path)(keep_in_memory=True)
