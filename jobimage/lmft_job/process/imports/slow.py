"""The modules that wait until they are used."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lmft_job.process.imports.compiler import defer_compiler
from lmft_job.process.imports.deferred import defer

QUANTIZATION = "bitsandbytes"
"""transformers imports peft where it is installed, and peft imports this: 3 s, for quantization alone."""

_NO_KERNELS = "Failed to load CPU gemm_4bit_forward"


@contextmanager
def _without_hub_kernels() -> Iterator[None]:
    """Within it, an import asks no hub for compiled kernels, and does not warn that it has none; other warnings pass.

    bitsandbytes would fetch a kernel for inference on CPUs, which training does not use.
    """

    def other(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_NO_KERNELS)

    hidden, logger = "kernels" not in sys.modules, logging.getLogger(f"{QUANTIZATION}.backends.cpu.ops")
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
    """Register the slow modules that are installed; call it before torch and transformers are imported."""
    defer(QUANTIZATION, around=_without_hub_kernels)
    defer_compiler()
