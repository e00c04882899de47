"""``spec.resumeFrom`` a run with an adapter: one of the same shape continues it, others start from its merged model."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from lmft_api.reasons import Reason
from lmft_api.spec import ALL_LINEAR, AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.text.wording import first_line
from lmft_api.wire.layout import ADAPTER, MODEL
from lmft_job import tasks
from lmft_job.adapters.attach import as_loaded
from lmft_job.adapters.stored import StoredAdapter, is_adapter_alone, read_stored
from lmft_job.adapters.targets import find_targets
from lmft_job.attempt.context import RunContext
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.models.build import load_config
from lmft_job.models.sources.source import SourceFolder, fetch_source

_FIELD = "spec.resumeFrom"
FetchBase = Callable[[str | None], SourceFolder]
"""Fetches spec.model.name at a commit; None for the manifest's own revision."""


@dataclass(frozen=True)
class Beginning:
    """What a run starts from.

    Attributes:
        model: weights, configuration, tokenizer.
        adapter: folder of the adapter to continue; None for a fresh one, or none.
        from_manifest: whether the model is that of spec.model.name, rather than the other run's.
    """

    model: SourceFolder
    adapter: Path | None = None
    from_manifest: bool = False


def resumed_sources(context: RunContext, uri: str, fetch_base: FetchBase) -> Beginning:
    """What a run that resumes from another one starts from.

    Args:
        context: context of the attempt.
        uri: folder of the other run's model, adapter, or newest checkpoint.
        fetch_base: fetches the manifest's model.

    Raises:
        InvalidError: the other run left an adapter alone, and this one cannot continue it.
    """
    wanted, say = context.settings.training.adapter, context.observer.note
    if wanted is not None and (beside := _beside(context, uri)) is not None:
        why = _differs(context, beside, lambda: linear_modules(context, fetch_base(beside.revision)))
        if why is None:
            say("continuing the adapter of the run that spec.resumeFrom names")
            return _continued(context, beside, fetch_base)
        say(f"starting from the merged model of the run that spec.resumeFrom names: {why}")
    model = _fetched(context, uri, "resumed")
    if not is_adapter_alone(model.path):
        return Beginning(model)
    stored = read_stored(model.path, _FIELD)
    if why := _differs(context, stored, lambda: linear_modules(context, fetch_base(stored.revision))):
        raise InvalidError(
            [
                f"{_FIELD}: that run left an adapter without a merged model to start from, and {why}. Set "
                f"spec.training.adapter to {{{stored.described()}}} and spec.model.name to {stored.base[:200]}, or "
                "choose a run that merged"
            ]
        )
    return _continued(context, stored, fetch_base)


def _continued(context: RunContext, stored: StoredAdapter, fetch_base: FetchBase) -> Beginning:
    base = fetch_base(stored.revision)
    if stored.revision and base.revision != stored.revision:
        raise InvalidError(
            [
                f"spec.model.revision: the adapter of {_FIELD} was trained on commit {stored.revision}, and this is "
                f"{base.revision}; set it to that"
            ]
        )
    return Beginning(base, stored.folder, from_manifest=True)


def _differs(context: RunContext, stored: StoredAdapter, linear: Callable[[], Collection[str]]) -> str | None:
    """Why a stored adapter is not continued; None if it is."""
    wanted, name = context.settings.training.adapter, context.run.spec.model.name
    if wanted is None:
        return "this run trains all weights"
    if as_loaded(stored.base) != as_loaded(name or ""):
        return f"its adapter belongs to {stored.base[:200]!r}, and spec.model.name is {name!r}"
    if not stored.continues(wanted, linear):
        return f"its adapter ({stored.described()}) has another shape than this run's"
    return None


def linear_modules(context: RunContext, base: SourceFolder) -> Collection[str]:
    """Names of the modules that all-linear stands for in a model, from its configuration alone.

    Raises:
        InvalidError: it has none, or its configuration cannot be used.
    """
    task, trust = tasks.of(context.settings.task), bool(context.run.spec.model.trust_remote_code)
    config = load_config(base.path, "spec.model.name", trust_remote_code=trust, labels=None)
    every = AdapterSettings(AdapterType.LORA, 1, 1, 0.0, (ALL_LINEAR,), False)
    try:
        with torch.device("meta"):
            model = getattr(transformers, task.auto_class).from_config(config, trust_remote_code=trust)
    except Exception as error:
        raise InvalidError([f"spec.model.name: the model cannot be built ({first_line(error)})"]) from error
    return find_targets(model, task, every).adapted


def _beside(context: RunContext, uri: str) -> StoredAdapter | None:
    """The adapter beside a run's merged model; None if there is none."""
    place, _, last = uri.rstrip("/").rpartition("/")
    if last != MODEL:
        return None
    try:
        return read_stored(_fetched(context, f"{place}/{ADAPTER}", "adapter").path, _FIELD)
    except RefusedError as error:
        if error.reason != Reason.MODEL_NOT_FOUND:
            raise
        return None


def _fetched(context: RunContext, uri: str, name: str) -> SourceFolder:
    return fetch_source(
        uri,
        context.folder / "sources" / name,
        field=_FIELD,
        credentials=context.secret("output"),
        check=context.check,
    )
