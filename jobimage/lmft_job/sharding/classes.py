"""torch's classes of divided weights and models, to ask whether something is one.

Importing them takes 0.8 s; as long as nobody has, nothing is one.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor
else:

    class _OfModule(type):
        def __instancecheck__(cls, value: Any) -> bool:
            module = sys.modules.get(cls.module)
            return module is not None and isinstance(value, getattr(module, cls.__name__))

    class FSDPModule(metaclass=_OfModule):
        """``torch.distributed.fsdp.FSDPModule``, for isinstance alone."""

        module = "torch.distributed.fsdp"

    class DTensor(metaclass=_OfModule):
        """``torch.distributed.tensor.DTensor``, for isinstance alone."""

        module = "torch.distributed.tensor"


__all__ = ["DTensor", "FSDPModule"]
