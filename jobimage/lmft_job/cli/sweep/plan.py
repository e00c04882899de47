"""The members of a sweep: every combination of the values, each with a name of its own; pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from lmft_api.manifest.changes import Change, parse_choices

LABEL = "lmfinetune.dev/sweep"
"""Label of a sweep's members in a cluster: the name of the manifest that they are made from."""
VALUES = "lmfinetune.dev/sweep-values"
"""Annotation with what sets a member apart."""
MOST_MEMBERS = 200
_LONGEST_NAME = 52  # names of Jobs and pods are longer than the run's
_FREE = (
    *("learning_rate", "weight_decay", "epochs", "max_steps", "gradient_accumulation_steps", "warmup_percent"),
    *("scheduler", "optimizer", "gradient_checkpointing", "max_grad_norm", "early_stopping_patience"),
    "watchdog_seconds",
)
_FREE_OF_LORA = ("rank", "alpha", "dropout", "rank_stabilized")


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its name, and the fields that set it apart, with their values."""

    name: str
    changes: tuple[Change, ...]

    @property
    def values(self) -> dict[str, str]:
        """Value by field, as text."""
        return {change.field: _shown(change.value) for change in self.changes}

    @property
    def title(self) -> str:
        """``training.learningRate=1e-5 training.adapter.rank=8``."""
        return " ".join(f"{field}={value}" for field, value in self.values.items())


def parse_sweep(texts: Sequence[str]) -> list[list[Change]]:
    """``--sweep FIELD=VALUE,VALUE`` as typed, one list of choices each.

    Raises:
        ValueError: one is not of this form, a field is given twice, or there are too many combinations.
    """
    axes = [parse_choices(text) for text in texts]
    fields = [axis[0].field for axis in axes]
    if twice := next((field for at, field in enumerate(fields) if field in fields[:at]), None):
        raise ValueError(f"{twice} is given twice; put its values into one list")
    if (count := prod(map(len, axes))) > MOST_MEMBERS:
        raise ValueError(f"{count} runs are more than a sweep takes, {MOST_MEMBERS}")
    return axes


def members(name: str, axes: Sequence[Sequence[Change]]) -> list[Member]:
    """Every combination; a name depends on the manifest's and the member's values alone, so that more can be added."""
    combinations = list(product(*axes))
    readable = [_readable(name, changes) for changes in combinations]
    fit = len(set(readable)) == len(readable) and all(len(one) <= _LONGEST_NAME for one in readable)
    names = readable if fit else [_hashed(name, changes) for changes in combinations]
    return [Member(own, changes) for own, changes in zip(names, combinations, strict=True)]


def _readable(name: str, changes: Sequence[Change]) -> str:
    """``eli5-learningrate-1e-5-rank-8``."""
    parts = [part for change in changes for part in (str(change.path[-1]), _shown(change.value))]
    return "-".join([name, *(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "x" for part in parts)])


def _hashed(name: str, changes: Sequence[Change]) -> str:
    told = json.dumps([[change.field, change.value] for change in changes], sort_keys=True)
    return f"{name[: _LONGEST_NAME - 9].rstrip('-.')}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def baseline_key(settings: Mapping[str, Any]) -> str:
    """Equal for runs that measure the same before training: same model, data, prompts and arithmetic.

    Args:
        settings: see :meth:`lmft_api.spec.resolved.Settings.flat`.
    """
    free = {f"training.{name}" for name in _FREE}
    if str(settings.get("training.adapter.type")) == "LoRA":
        # LoRA starts from zero, whatever its size; DoRA scales the weights, which rounds.
        free |= {f"training.adapter.{name}" for name in _FREE_OF_LORA}
    decisive = {
        name: value
        for name, value in settings.items()
        if name not in free and name.partition(".")[0] not in ("evaluation", "checkpoint", "output")
    }
    return json.dumps(decisive, sort_keys=True, default=str)
