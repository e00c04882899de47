"""Where data comes from: the hub, files, or Python's bundled docs. The only module that uses ``datasets``.

A source knows its identity before anything is read, so that prepared data is found without reading it.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lmft_api.reasons import Reason
from lmft_api.spec import DataFormat, Dataset
from lmft_job.data.problems import Problems
from lmft_job.data.sources import files
from lmft_job.data.sources.files import Batches
from lmft_job.data.sources.hub_card import foreign_places, read_card
from lmft_job.data.sources.lines import DataFile
from lmft_job.data.sources.places import find_files
from lmft_job.data.sources.splits import parse
from lmft_job.data.text.fields import paths, roots
from lmft_job.data.text.lookalikes import LooksLikeRowsError, look_alike
from lmft_job.data.tokens.packing import Check
from lmft_job.errors import InvalidError, JobError, RefusedError, UnavailableError
from lmft_job.hub import client
from lmft_job.process.transfers import Told, arriving, silent
from lmft_job.process.watchdog import Pause

log = logging.getLogger(__name__)

_PART_BYTES = 1 << 22


@dataclass
class SourceRows:
    """The rows of one split.

    Attributes:
        batches: the rows as dicts; a stream that can be read once.
        fields: dotted paths that exist, if the source knows them beforehand.
        label_names: names of the classes, if the source knows them.
        look_alike: the other format that plain text looks like.
        spans: split, first row and end of each slice that makes up the rows, if the source cuts slices itself.
    """

    batches: Batches
    fields: list[str] = field(default_factory=list)
    label_names: list[str] | None = None
    look_alike: str | None = None
    spans: list[tuple[str, int, int]] = field(default_factory=list)


class DataSource(Protocol):
    """A data set.

    Attributes:
        identity: changes if the data changes.
        title: for people.
        noun: what a row is called, plural.
        sliced: whether :meth:`rows` takes slices; otherwise there is one split, ``train``, and slices are cut from it.
    """

    identity: str
    title: str
    noun: str
    sliced: bool

    def rows(self, split: str, wanted: Sequence[str], label: str | None, problems: Problems) -> SourceRows:
        """The rows of a split, with at least the fields that the wanted paths and the label need."""


def open_source(
    spec: Dataset,
    scratch: Path,
    *,
    hub_token: Path | None,
    credentials: Path | None,
    check: Check,
    admitted: Sequence[str] | None = None,
    paused: Pause = nullcontext,
    told: Told = silent,
) -> DataSource:
    """Find the data set and its identity; files of s3:// are fetched into the scratch folder.

    ``admitted`` are the platform's patterns for addresses of files; None allows all;
    ``paused`` keeps the watchdog from watching the hub's client, which does not call ``check``;
    ``told`` is told what has arrived.

    Raises:
        RefusedError: not found or not allowed.
        UnavailableError: hub or storage unreachable.
        InvalidError: files that a data set may not name.
    """
    if spec.builtin is not None:
        return PythonDocs()
    if spec.files is not None and spec.format is not None:
        return Files(find_files(spec.files, scratch, credentials, check, admitted, told), spec.format, check)
    if spec.name is None:
        raise InvalidError(["spec.dataset: set exactly one of name, files (with format) and builtin"])
    return Hub(spec.name, spec.config, spec.revision, hub_token, paused, told)


class PythonDocs:
    """The language reference in ``pydoc_data.topics``: one row per topic, paragraphs in ``answers.text`` as in ELI5."""

    title = "PythonDocs"
    noun = "topics"
    sliced = False

    def __init__(self) -> None:
        from pydoc_data.topics import topics

        self._topics: dict[str, str] = topics
        content = "\0".join(f"{name}\0{text}" for name, text in sorted(topics.items()))
        self.identity = f"pydoc:{hashlib.sha256(content.encode()).hexdigest()}"

    def rows(self, split: str, wanted: Sequence[str], label: str | None, problems: Problems) -> SourceRows:
        """Topics by name; paragraphs are separated by blank lines."""
        rows = []
        for name, body in sorted(self._topics.items()):
            paragraphs = [part.strip() for part in re.split(r"\n\s*\n", body) if part.strip()]
            rows.append({"topic": name, "answers": {"text": paragraphs}})
        return SourceRows(iter([rows]), list(paths(rows[0])))


class Files:
    """Files of one format, in the order of the manifest, wildcards sorted by name."""

    noun = "rows"
    sliced = False

    def __init__(self, found: list[DataFile], kind: DataFormat, check: Check) -> None:
        self._files = found
        self._kind = kind
        self.title = found[0].name if len(found) == 1 else f"{found[0].name} and {len(found) - 1} more"
        self.identity = f"{kind.value}:{','.join(_digest(file.path, check) for file in found)}"

    def rows(self, split: str, wanted: Sequence[str], label: str | None, problems: Problems) -> SourceRows:
        """All files in order."""
        columns = list(dict.fromkeys(root for path in (*wanted, label) if path for root in roots(path)))
        alone = len(self._files) == 1
        names = files.label_names(self._files[0], label) if label and self._kind == DataFormat.PARQUET else None

        look_alike, rows_of_another_kind = self._look_alikes(problems)

        def batches() -> Batches:
            for file in self._files:
                if file in rows_of_another_kind:
                    continue
                yield from files.read(file, self._kind, columns, problems, alone=alone)

        return SourceRows(batches(), label_names=names, look_alike=look_alike)

    def _look_alikes(self, problems: Problems) -> tuple[str | None, list[DataFile]]:
        """The other format that plain text looks like, if any; and files that certainly are not plain text."""
        found, wrong = [], []
        for file in self._files if self._kind == DataFormat.TEXT else ():
            try:
                found.append(look_alike(file))
            except LooksLikeRowsError as error:
                problems.add(f"spec.dataset.files: {file.name} {error}")
                wrong.append(file)
        return next(filter(None, found), None), wrong


def _digest(path: Path, check: Check) -> str:
    """SHA-256 of a file in hex; ``check`` is called between its parts."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while part := source.read(_PART_BYTES):
            check()
            digest.update(part)
    return digest.hexdigest()


class Hub:
    """A data set of the hub, pinned to the commit that its revision names now."""

    noun = "rows"
    sliced = True

    def __init__(
        self,
        name: str,
        config: str | None,
        revision: str | None,
        hub_token: Path | None,
        paused: Pause = nullcontext,
        told: Told = silent,
    ) -> None:
        self.title = name
        self._paused = paused
        self._told = told
        self._config = config
        self._token = hub_token.read_text().strip() if hub_token is not None and hub_token.is_file() else None
        self._revision = revision
        commit = self._commit()
        if commit:
            self._require_own_files()
        self.identity = f"hub:{name}:{config}:{commit or self._cached()}"

    def _commit(self) -> str | None:
        """The commit on the hub; None offline, where only cached data is available."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            api = HfApi(token=self._token)
            commit: str | None = client.with_retries(
                lambda: api.dataset_info(self.title, revision=self._revision).sha, paused=self._paused
            )
        except OfflineModeIsEnabled:
            return None
        except Exception as error:
            raise hub_error(error, self.title, self._revision, self._token is not None) from error
        self._revision = commit
        return commit

    def _require_own_files(self) -> None:
        """Check the card's places before any is opened. Not offline: cached data was checked before."""
        from huggingface_hub import constants

        try:
            card = client.with_retries(lambda: read_card(self.title, self._revision, self._token), paused=self._paused)
        except Exception as error:
            raise hub_error(error, self.title, self._revision, self._token is not None) from error
        if foreign := foreign_places(card, self.title, constants.ENDPOINT):
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise InvalidError(
                [
                    f"spec.dataset.name: the card of {self.title} names data outside of its repository: "
                    f"{foreign[0][:200]!r}{more}. Choose another data set, or give the files themselves in "
                    "spec.dataset.files."
                ],
                Reason.DATASET_INVALID,
            )

    def _cached(self) -> str:
        """Identifies the data in the local cache."""
        import datasets

        try:
            builder = datasets.load_dataset_builder(self.title, self._config, revision=self._revision)
        except Exception as error:
            raise hub_error(error, self.title, self._revision, self._token is not None, "") from error
        return f"{builder.hash}"

    def rows(self, split: str, wanted: Sequence[str], label: str | None, problems: Problems) -> SourceRows:
        """Download (or take from the cache) and stream."""
        import datasets

        datasets.disable_progress_bars()
        try:
            with arriving(self.title, _downloads(self.title), self._told):
                data: Any = client.with_retries(
                    lambda: datasets.load_dataset(
                        self.title, self._config, split=split, revision=self._revision, token=self._token
                    ),
                    paused=self._paused,
                )
        except Exception as error:
            translated = hub_error(error, self.title, self._revision, self._token is not None, split)
            if isinstance(translated, InvalidError):
                for problem in translated.problems:
                    problems.add(problem)
                return SourceRows(iter(()))
            raise translated from error
        roots_wanted = dict.fromkeys(root for path in (*wanted, label) if path for root in roots(path))
        columns = [name for name in roots_wanted if name in data.column_names]
        feature = data.features
        for name in [label] if not label or label in feature else label.split("."):
            feature = feature.get(name) if isinstance(feature, dict) else None
        names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        known = list(_schema_paths(data.features.arrow_schema))

        def batches() -> Iterator[list[dict[str, Any]]]:
            if columns:
                for table in data.select_columns(columns).with_format("arrow").iter(batch_size=1000):
                    yield table.to_pylist()

        return SourceRows(batches(), known, names, spans=_spans(split, data))


def _downloads(name: str) -> Path:
    """Where the hub's client puts the files of a data set."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "blobs"


def _spans(split: str, data: Any) -> list[tuple[str, int, int]]:
    """The rows of each split that a sum of slices consists of; empty if the splits' sizes are unknown."""
    found = []
    for part in map(parse, split.split("+")):
        known = (data.info.splits or {}).get(part.name) if part else None
        if part is None or known is None or not known.num_examples:
            return []
        rows = part.indices(known.num_examples)
        found += [(part.name, int(rows[0]), int(rows[-1]) + 1)] if len(rows) else []
    return found if sum(end - start for _, start, end in found) == len(data) else []


def _schema_paths(schema: Any, prefix: str = "") -> Iterator[str]:
    import pyarrow as pa

    for entry in schema:
        kind, path = entry.type, f"{prefix}{entry.name}"
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from _schema_paths([kind.field(i) for i in range(kind.num_fields)], f"{path}.")
        else:
            yield path


def hub_error(
    error: BaseException, name: str, revision: str | None, with_token: bool, split: str | None = None
) -> JobError:
    """What an error of the hub or of ``datasets`` means for the run."""
    from datasets.exceptions import DatasetNotFoundError

    wanted = client.HubRequest(
        name, "spec.dataset.name", "data set", revision, "spec.dataset.revision", with_token,
        not_found=Reason.DATASET_NOT_FOUND, denied=Reason.DATASET_ACCESS_DENIED,
    )  # fmt: skip
    explained = client.explained(error, wanted)
    if explained is not None:
        return explained
    said = str(error).strip().split("\n")[0][:300]
    if any(isinstance(link, DatasetNotFoundError) for link in client.chain_of(error)):
        return RefusedError(
            Reason.DATASET_NOT_FOUND, f"spec.dataset.name: {name!r} is not on the hub ({said}). Check the spelling."
        )
    if isinstance(error, ValueError | IndexError) and split is not None:
        at = "spec.dataset.config" if "onfig" in said else "spec.dataset.split"
        return InvalidError([f"{at}: {name!r}, {split!r}: {said}"], Reason.DATASET_INVALID)
    if isinstance(error, OSError):
        return UnavailableError(f"spec.dataset.name: {name!r} could not be loaded ({said}).")
    return InvalidError([f"spec.dataset.name: {name!r} could not be loaded ({said})"], Reason.DATASET_INVALID)
