"""What the operator hands to a pod: the run file, and where things lie in the container."""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from lmft_api.base import ApiModel
from lmft_api.spec import LMFineTuneSpec

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
"""One folder each of output, dataset, model, hub; one file for each key of the Secret."""
TERMINATION_LOG = PurePosixPath("/dev/termination-log")

POD_UID_VARIABLE = "LMFT_POD_UID"
"""The pod's own UID in its environment, by the downward API."""

CHECKPOINTS_FOLDER = "checkpoints"
"""Checkpoints of all attempts, below a run's folder in storage."""

KUBERNETES_GRACE_SECONDS = 30
"""terminationGracePeriodSeconds of a pod that does not say."""

CONTAINER = "job"
"""Name of the container that runs the attempt; admission may put others beside it."""
RUN_LABEL = "lmfinetune.dev/run-uid"
ATTEMPT_LABEL = "lmfinetune.dev/attempt"
STAGE_LABEL = "lmfinetune.dev/stage"


class Stage(StrEnum):
    """Which part of the recipe a pod runs."""

    ALL = "All"
    PREPARE = "Prepare"
    TRAIN = "Train"


class RunFile(ApiModel):
    """One attempt of a run."""

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
    grace_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds from SIGTERM to SIGKILL: the pod's terminationGracePeriodSeconds. Default: in a pod Kubernetes' own."""
    spec: LMFineTuneSpec
    """The spec, with the platform's defaults filled in."""


def run_id(name: str, uid: str) -> str:
    """Folder of a run below ``<output>/<namespace>/runs/``: the name cut to 200, and the first 8 of the UID."""
    return f"{name[:200]}-{uid[:8]}"


def run_folder(output_uri: str, namespace: str, name: str, uid: str) -> str:
    """Address of a run's folder: checkpoints, model and report lie below it."""
    return f"{output_uri.rstrip('/')}/{namespace}/runs/{run_id(name, uid)}"


def attempt_folder(attempt: int, pod_uid: str = "") -> str:
    """Folder of a pod's checkpoints, below the run's; a pod writes in its own only.

    Args:
        attempt: its number.
        pod_uid: UID of its pod: a number may repeat once the cluster's database was restored to an older snapshot.
            Empty on a laptop, and in what earlier versions wrote.
    """
    return f"{CHECKPOINTS_FOLDER}/{attempt_name(attempt, pod_uid)}"


def attempt_name(attempt: int, pod_uid: str = "") -> str:
    """``attempt-0002-<first 8 of the pod's UID>``, or ``attempt-0002`` where the pod is not known."""
    short = short_uid(pod_uid)
    return f"attempt-{attempt:04d}" + (f"-{short}" if short else "")


def short_uid(uid: str) -> str:
    """The first 8 letters and digits of a UID."""
    return "".join(letter for letter in uid if letter.isascii() and letter.isalnum())[:8]


def checkpoint_folder(attempt: int, step: int, pod_uid: str = "") -> str:
    """Folder of one checkpoint, below the run's."""
    return f"{attempt_folder(attempt, pod_uid)}/step-{step:08d}"


def spec_hash(spec: LMFineTuneSpec) -> str:
    """SHA-256 of what decides the result: the spec without the fields that may change while it runs."""
    return json_hash(spec.to_json())


def json_hash(spec: Mapping[str, Any]) -> str:
    """The same of a spec as it stands in a run file."""
    body = {name: value for name, value in spec.items() if name not in MUTABLE_FIELDS}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


MUTABLE_FIELDS = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "maxRetries")
"""Fields of the spec that may change after the first attempt."""
