"""Fetches what a run starts from: the manifest's model and tokenizer, or what spec.resumeFrom names."""

from dataclasses import dataclass
from pathlib import Path

from lmft_api.wire.layout import STAGED
from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.identity import RunIdentity
from lmft_job.models.sources.source import SourceFolder, content_hash, fetch_source
from lmft_job.stages.ranks.turns import once_in_pod
from lmft_job.stages.sources.resumed import Beginning, resumed_sources
from lmft_job.storage import DamagedFolderError, Store, fetch_verified


@dataclass(frozen=True)
class Sources:
    """Folders on this disk.

    Attributes:
        model: weights, configuration, tokenizer; None to train from scratch.
        tokenizer: a tokenizer other than the model's; None for the model's or a trained one.
        resumed: what the run starts from that spec.resumeFrom names; None without it.
    """

    model: SourceFolder | None
    tokenizer: SourceFolder | None
    resumed: Beginning | None = None

    @property
    def revision(self) -> str | None:
        """Commit of the model on the hub; None if it comes from elsewhere."""
        return self.model.revision if self.model else None


def find_sources(context: RunContext, store: Store, began: RunIdentity | None = None, weights: bool = True) -> Sources:
    """Fetch model and tokenizer, staged ones if there are any; the commit that the run started with."""
    spec = context.run.spec.model
    token, credentials = context.hub_token(), context.secret("model")
    code = bool(spec.trust_remote_code)

    def fetch(name: str, source: str, revision: str | None, field: str, weights: bool) -> SourceFolder:
        def into(folder: Path) -> SourceFolder:
            if context.run.stage == Stage.TRAIN and (staged := _staged(context, store, name, folder)):
                return staged
            return fetch_source(
                source,
                folder,
                field=field,
                revision=revision,
                token=token,
                credentials=credentials,
                with_code=code,
                weights=weights,
                check=context.check,
                paused=context.watchdog.paused,
                told=context.observer.transfer,
            )

        return once_in_pod(context, name, into)

    model = tokenizer = None

    def fetch_base(revision: str | None) -> SourceFolder:
        return fetch("model", spec.name or "", spec.revision or revision, "spec.model.name", weights=weights)

    beginning = None
    if context.run.resume_model_uri:
        beginning = resumed_sources(context, context.run.resume_model_uri, fetch_base)
        model = beginning.model
    elif spec.name:
        model = fetch_base(began.model if began else None)
    if spec.tokenizer and spec.tokenizer.name:
        tokenizer = fetch("tokenizer", spec.tokenizer.name, None, "spec.model.tokenizer.name", weights=False)
    return Sources(model, tokenizer, beginning)


def model_identity(context: RunContext, sources: Sources) -> str | None:
    """What a resumed run must find again.

    Checkpoints of an adapter lack the base model, so its files count where it has no commit.

    Returns:
        The commit, else with an adapter a hash of the files; None if neither is known.
    """
    if context.settings.training.adapter is None or sources.model is None:
        return sources.revision
    return sources.revision or content_hash(sources.model.path)


def _staged(context: RunContext, store: Store, name: str, folder: Path) -> SourceFolder | None:
    try:
        manifest = fetch_verified(store, f"{STAGED}/{name}", folder, context.check)
    except DamagedFolderError as error:
        context.observer.note(f"staged {name} is damaged ({error}); fetched again")
        return None
    return SourceFolder(folder, str(manifest.labels.get("revision") or "") or None) if manifest else None
