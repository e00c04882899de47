"""What the operator hands to a pod: the run file, and where things lie in the container.

Operator and job image may be of neighbouring releases: ``spec.podTemplate.image`` may be made from an older image, and
an upgrade changes one before the other. See :mod:`lmft_api.wire.versions` for what they expect of each other.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from typing_extensions import override

from lmft_api.schema.types import ApiModel, Quantity
from lmft_api.spec import LMFineTuneSpec
from lmft_api.wire.versions import FORMAT_KEY, format_check

RUN_FILE = PurePosixPath("/etc/lmft/run.json")
"""The run as JSON: a pod annotation, mounted by the downward API."""
RUN_ANNOTATION = "lmfinetune.dev/run"
CA_FILE = PurePosixPath("/etc/lmft/progress-ca.crt")
"""Certificate authority of the progress server: a pod annotation, mounted by the downward API."""
CA_ANNOTATION = "lmfinetune.dev/progress-ca"
TOKEN_FILE = PurePosixPath("/var/run/secrets/lmfinetune.dev/token")
"""Projected service account token for reporting progress."""
TOKEN_AUDIENCE = "lmfinetune.dev"  # noqa: S105 - a name
SECRETS_FOLDER = PurePosixPath("/etc/lmft/secrets")
"""One folder each of output, dataset, model, hub, mlflow, wandb; one file for each key of the Secret."""
TERMINATION_LOG = PurePosixPath("/dev/termination-log")

POD_UID_VARIABLE = "LMFT_POD_UID"
"""The pod's own UID in its environment, by the downward API."""


KUBERNETES_GRACE_SECONDS = 30
"""terminationGracePeriodSeconds of a pod that does not say."""

CONTAINER = "job"
"""Name of the container that runs the attempt; admission may put others beside it."""
RUN_LABEL = "lmfinetune.dev/run-uid"
ATTEMPT_LABEL = "lmfinetune.dev/attempt"
STAGE_LABEL = "lmfinetune.dev/stage"
NODES_LABEL = "lmfinetune.dev/nodes"
"""Number of pods of an attempt that has several; without it an attempt is one pod."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Kubernetes' label and annotation with the number of a pod in an Indexed Job, from 0."""


class Stage(StrEnum):
    """Which part of the recipe a pod runs."""

    ALL = "All"
    PREPARE = "Prepare"
    TRAIN = "Train"


RUN_FILE_FORMAT = 2
"""Newest format that this release reads. Format 2 has ``sourcePatterns``, which must not be passed over."""


class RunFile(ApiModel):
    """One attempt of a run. Unknown keys are passed over, but not those of the spec.

    Reading one that only a newer job image can follow raises :class:`lmft_api.wire.versions.NewerFormatError`.
    """

    model_config = ConfigDict(extra="ignore")
    _format = format_check(RUN_FILE_FORMAT, "the run file")

    name: str
    """Name of the LMFineTune."""
    namespace: str
    """Its namespace."""
    uid: str
    """Its UID; two runs of one name never share a folder."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Number of this attempt, from 1."""
    stage: Stage = Stage.ALL
    """Part of the recipe to run."""
    allow_user_code: bool = False
    """Whether policy lets training.callbacks and training.trainerClass be imported."""
    allow_remote_code: bool = False
    """Whether policy lets model.trustRemoteCode take effect."""
    source_patterns: list[str] | None = None
    """Patterns of policy.sources.uris; each file that a wildcard of dataset.files names must match one. Default: none,
    which admits all."""
    resume_model_uri: str | None = None
    """Folder of the model or checkpoint of the run that spec.resumeFrom names."""
    image: str | None = None
    """Image of this attempt, for provenance."""
    gpu_memory: Quantity | None = None
    """Memory of the run's GPU, from the platform's table; spec.resources.gpuMemory wins. Default: not known."""
    grace_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds from SIGTERM to SIGKILL: the pod's terminationGracePeriodSeconds. Default: in a pod Kubernetes' own."""
    spec: LMFineTuneSpec
    """The spec, with the platform's defaults filled in."""

    @override
    def to_json(self) -> dict[str, Any]:
        """As it is written: without what is not set, and in the oldest format whose readers can follow it.

        Release 0.1 refuses keys that it does not know, ``format`` as well, so format 1 goes unsaid.
        """
        body = super().to_json()
        return body if self.source_patterns is None else {FORMAT_KEY: RUN_FILE_FORMAT, **body}


def spec_hash(spec: LMFineTuneSpec) -> str:
    """SHA-256 of what decides the result: the spec without the fields that may change while it runs."""
    return json_hash(spec.to_json())


def json_hash(spec: Mapping[str, Any]) -> str:
    """The same of a spec as it stands in a run file."""
    body = {name: value for name, value in spec.items() if name not in MUTABLE_FIELDS}
    resources = body.pop("resources", None)
    given = resources.items() if isinstance(resources, Mapping) else ()
    kept = {name: value for name, value in given if name not in MUTABLE_RESOURCES}
    return _digest(body | ({"resources": kept} if kept else {}))


def same_spec(digest: str, spec: LMFineTuneSpec) -> bool:
    """Whether a hash that was stored earlier is one of this spec.

    Releases that knew one device at most hashed all of ``resources``; what they may have had there is tried.
    """
    return digest == spec_hash(spec) or digest in _earlier_hashes(spec)


def _earlier_hashes(spec: LMFineTuneSpec) -> set[str]:
    body = {name: value for name, value in spec.to_json().items() if name not in MUTABLE_FIELDS}
    resources = body.pop("resources", {})
    kept = {name: value for name, value in resources.items() if name not in MUTABLE_RESOURCES}
    found = set()
    for gpus, nodes in product((None, 0, 1), (None, 1)):
        counts = {"gpusPerNode": gpus, "nodes": nodes}
        found.add(_digest(body | {"resources": kept | {name: n for name, n in counts.items() if n is not None}}))
    return found if kept else {*found, _digest(body)}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


MUTABLE_FIELDS = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "maxRetries", "reportTo")
"""Fields of the spec that may change after the first attempt."""
MUTABLE_RESOURCES = ("nodes", "gpusPerNode", "elastic")
"""Fields of ``spec.resources`` that may: the next attempt takes them, on the same figures."""
