"""An adapter that another run left: its configuration is read as data, and never handed to peft.

Anyone who may write to the storage may have written it. Of ``adapter_config.json`` only what is compared here is read;
the adapter on the model is always made from the manifest, and its weights must then fit (:mod:`.state`).
"""

import json
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_job.adapters.state import CONFIG, FILE
from lmft_job.errors import InvalidError

_MOST_BYTES = 1 << 20
_SHOWN, _LONGEST = 12, 300
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
}
"""Settings of peft that an adapter of a manifest never has."""


@dataclass(frozen=True)
class StoredAdapter:
    """What is compared of an adapter.

    Attributes:
        folder: with its weights.
        base: base model as it names it; never followed, only compared with the manifest.
        revision: commit of the base on the hub.
        shape: type, rank, alpha, and whether it is rank-stabilized.
        targets: names of the modules that it changes.
        plain: whether it has nothing else that a manifest cannot say.
    """

    folder: Path
    base: str
    revision: str | None
    shape: tuple[str, int, float, bool]
    targets: frozenset[str]
    plain: bool

    def continues(self, wanted: AdapterSettings, linear: Callable[[], Collection[str]]) -> bool:
        """Whether a manifest's adapter has the same shape, so that it can begin with these weights.

        Args:
            wanted: settings of the manifest's adapter.
            linear: names of the modules that all-linear stands for.
        """
        ours = (wanted.type.value, wanted.rank, float(wanted.alpha), wanted.rank_stabilized)
        return (
            self.plain
            and self.shape == ours
            and self._has_modules(linear() if wanted.all_linear else wanted.target_modules)
        )

    def _has_modules(self, names: Collection[str]) -> bool:
        """Whether its targets are these, which may be given by their last parts."""

        def among(name: str, others: Collection[str]) -> bool:
            return any(f".{name}".endswith(f".{one}") or f".{one}".endswith(f".{name}") for one in others)

        return all(among(name, names) for name in self.targets) and all(among(name, self.targets) for name in names)

    def described(self) -> str:
        """Its shape as a manifest would say it."""
        kind, rank, alpha, stabilized = self.shape
        names = sorted(self.targets)
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        return (
            f"type: {kind}, rank: {rank}, alpha: {alpha:g}"
            + (", rankStabilized: true" if stabilized else "")
            + f", targetModules: [{shown[:_LONGEST]}]"
        )


def is_adapter_alone(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def read_stored(folder: Path, field: str) -> StoredAdapter:
    """An adapter's configuration, from anyone.

    Raises:
        InvalidError: it cannot be read, or is no LoRA.
    """
    root = Path(os.path.realpath(folder))
    for name in (CONFIG, FILE):
        if not Path(os.path.realpath(folder / name)).is_relative_to(root) or not (folder / name).is_file():
            others = ", ".join(sorted(path.name for path in folder.glob("adapter_model.*") if path.name != FILE))
            said = f" ({others[:80]} is not read: it could run code when loaded)" if name == FILE and others else ""
            raise InvalidError([f"{field}: its adapter has no {name} in its folder{said}; choose another run"])
    try:
        with (folder / CONFIG).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
        return _understood(folder, json.loads(text))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise InvalidError(
            [f"{field}: the {CONFIG} of its adapter cannot be used ({str(error)[:200]}); choose another run"]
        ) from error


def _understood(folder: Path, body: dict[str, Any]) -> StoredAdapter:
    rank, alpha, targets, base = body["r"], body["lora_alpha"], body["target_modules"], body["base_model_name_or_path"]
    if body["peft_type"] != "LORA":
        raise ValueError(f"it is {str(body['peft_type'])[:40]!r}, not LORA")
    if type(rank) is not int or not 1 <= rank <= 512:
        raise ValueError(f"its rank is {str(rank)[:40]}, not 1 to 512")
    if type(alpha) not in (int, float) or not 0 < alpha <= 4096:
        raise ValueError(f"its alpha is {str(alpha)[:40]}, not up to 4096")
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise ValueError("its target_modules are no list of names")
    kind = AdapterType.DORA if body.get("use_dora") is True else AdapterType.LORA
    revision = body.get("revision")
    return StoredAdapter(
        folder,
        str(base),
        revision if isinstance(revision, str) and _COMMIT.fullmatch(revision) else None,
        (kind.value, rank, float(alpha), body.get("use_rslora") is True),
        frozenset(targets),
        all(body.get(key, values[0]) in values for key, values in _PLAIN.items()),
    )
