"""A run as the cluster has it, typed by the contract. No I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from lmft.display.card import card, table
from lmft.display.text import line
from lmft.errors import InvalidManifest
from lmft_api.manifest.validation import parse_spec, spec_problems
from lmft_api.reasons import REASONS, Phase, Reason
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import ConditionStatus, LMFineTuneStatus
from lmft_api.status.fields import Progress, Results
from lmft_api.status.reading import read_status
from lmft_api.text.shown import one_line


@dataclass(frozen=True, eq=False)
class Run:
    """An LMFineTune at one moment; ask again for a newer one.

    Attributes:
        uid: tells it from an earlier one of the same name.
        created: when, RFC 3339.
        manifest: the resource as the server has it.
        status: as far as this release knows it; fields of later ones are in the manifest.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    created: str
    labels: Mapping[str, str]
    status: LMFineTuneStatus
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """A resource of the API server."""
        metadata = manifest["metadata"]
        return cls(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata["name"]),
            uid=str(metadata.get("uid") or ""),
            resource_version=str(metadata.get("resourceVersion") or ""),
            created=str(metadata.get("creationTimestamp") or ""),
            labels=metadata.get("labels") or {},
            status=read_status(json.dumps(manifest.get("status") or {})),
            manifest=manifest,
        )

    @cached_property
    def spec(self) -> LMFineTuneSpec:
        """What was asked for.

        Raises:
            InvalidManifest: another release wrote what this one does not know; ``manifest`` has it.
        """
        spec = self.manifest.get("spec")
        if problems := spec_problems(spec):
            raise InvalidManifest(f"the spec of {self.namespace}/{self.name}", problems)
        return parse_spec(spec)

    @property
    def phase(self) -> Phase | None:
        """For display; conditions are the API."""
        return self.status.phase

    @property
    def reason(self) -> str:
        """Reason of the condition ``Succeeded``: Training, Completed, Diverged…"""
        return self.status.reason or Reason.PENDING

    @property
    def message(self) -> str:
        """What the condition says, for people."""
        return self.status.succeeded.message if self.status.succeeded else ""

    @property
    def remedy(self) -> str:
        """What to do about the reason; empty where there is nothing to do."""
        known = REASONS.get(Reason(self.reason)) if self.reason in set(Reason) else None
        return known.remedy if known else ""

    @property
    def ended(self) -> bool:
        """Whether it is over, one way or the other."""
        return self.status.ended

    @property
    def succeeded(self) -> bool:
        """Whether it has ended with success."""
        outcome = self.status.succeeded
        return outcome is not None and outcome.status == ConditionStatus.TRUE

    @property
    def suspended(self) -> bool:
        """Whether it is to be suspended (``spec.suspend``)."""
        spec = self.manifest.get("spec")
        return isinstance(spec, dict) and spec.get("suspend") is True

    @property
    def progress(self) -> Progress | None:
        """How far it is."""
        return self.status.progress

    @property
    def results(self) -> Results | None:
        """What came out so far."""
        return self.status.results

    def __str__(self) -> str:
        return line(self.name, self.status)

    def __repr__(self) -> str:
        return f"<Run {one_line(f'{self.namespace}/{self.name} {self.reason}', 600)}>"

    def _repr_html_(self) -> str:
        return card(self.namespace, self.name, self.status)


@dataclass(frozen=True)
class Event:
    """An Event about a run.

    Attributes:
        time: when it was seen last, RFC 3339.
        kind: Normal or Warning.
    """

    time: str
    kind: str
    reason: str
    message: str

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """An Event of the API server."""
        made = (manifest.get("metadata") or {}).get("creationTimestamp")
        return cls(
            one_line(str(manifest.get("lastTimestamp") or manifest.get("eventTime") or made or "")),
            one_line(str(manifest.get("type") or "Normal")),
            one_line(str(manifest.get("reason") or "")),
            one_line(str(manifest.get("message") or "")),
        )


class Runs(list[Run]):
    """Runs as a list, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return table([(run.namespace, run.name, run.status) for run in self])
