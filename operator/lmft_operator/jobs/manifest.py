"""The Job of an attempt, as plain data: a pure function of the run, its spec and the platform's settings."""

import hashlib
import json
from typing import Any

from lmft_api import API_VERSION, KIND
from lmft_api.addresses import SCHEMES
from lmft_api.spec import HubTokenRef, LMFineTuneSpec, Output
from lmft_api.spec.fields import QUEUE_LABEL
from lmft_api.spec.output import tracker_secrets
from lmft_api.spec.pod import PodTemplate, Resources, SecretRef
from lmft_api.wire.layout import run_folder
from lmft_api.wire.progress import CA_VARIABLE, SERVER_URL_VARIABLE, TOKEN_VARIABLE
from lmft_api.wire.run_file import (
    ATTEMPT_LABEL,
    CA_ANNOTATION,
    CA_FILE,
    CONTAINER,
    POD_UID_VARIABLE,
    RUN_ANNOTATION,
    RUN_FILE,
    RUN_LABEL,
    SECRETS_FOLDER,
    STAGE_LABEL,
    TERMINATION_LOG,
    TOKEN_AUDIENCE,
    TOKEN_FILE,
    RunFile,
    Stage,
)
from lmft_operator.domain.facts import RunFacts
from lmft_operator.domain.plan import Plan, PodRequirements
from lmft_operator.jobs import peers
from lmft_operator.jobs.resources import Demand, demand, gpu_memory
from lmft_operator.settings import OperatorSettings, PolicyRules

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""Annotation: the container whose log and shell kubectl uses by default, if admission has added others."""
MAX_NAME = 63
TOKEN_SECONDS = 3600
CA_BUNDLE_FOLDER = "/etc/lmft/ca"
_EVERY_FILE = frozenset(f"{scheme}://*" for scheme in SCHEMES)
"""Patterns that together allow every file that a manifest may name."""
NO_NODE_ROLE = "AWS_EC2_METADATA_DISABLED"
"""Keeps botocore from using the node's metadata service. Web identity and EKS Pod Identity are not affected."""


def job_name(name: str, attempt: int, stage: Stage, uid: str = "", nodes: int = 1) -> str:
    """``<name>-<attempt>``, for a preparation ``<name>-<attempt>-prepare``; longer names are cut and hashed.

    With a UID the name is hashed with it: used when somebody else's Job has the plain name. The host names of several
    pods are the Job's name and their number: they have to fit too.
    """
    suffix = f"-{attempt}" + ("-prepare" if stage == Stage.PREPARE else "")
    most = MAX_NAME if nodes == 1 else MAX_NAME - len(f"-{nodes - 1}")
    if not uid and len(name) + len(suffix) <= most and "." not in name:
        return name + suffix
    digest = hashlib.sha256(f"{name}/{uid}".encode()).hexdigest()[:8]
    stem = name.replace(".", "-")[: most - len(suffix) - len(digest) - 1].rstrip("-")
    return f"{stem}-{digest}{suffix}"


def with_defaults(spec: LMFineTuneSpec, settings: OperatorSettings) -> LMFineTuneSpec:
    """The spec with the platform's defaults filled in for what the manifest leaves out."""
    defaults, output = settings.defaults, spec.output or Output()
    updates: dict[str, Any] = {}
    if output.uri is None and defaults.output_uri:
        updates["uri"] = defaults.output_uri
    if output.credentials_secret_ref is None and defaults.credentials_secret_name:
        updates["credentials_secret_ref"] = SecretRef(name=defaults.credentials_secret_name)
    if updates:
        spec = spec.model_copy(update={"output": output.model_copy(update=updates)})
    if spec.hub_token_secret_ref is None and defaults.hub_token_secret_name:
        spec = spec.model_copy(update={"hub_token_secret_ref": HubTokenRef(name=defaults.hub_token_secret_name)})
    return spec


def folder_of(run: RunFacts, spec: LMFineTuneSpec) -> str | None:
    """Address of the run's folder in storage; None where the manifest names no readable storage."""
    if spec.output is None or spec.output.uri is None:
        return None
    return run_folder(spec.output.uri, run.key.namespace, run.key.name, run.uid)


def image_of(spec: LMFineTuneSpec, settings: OperatorSettings) -> str:
    """The image that the run uses."""
    return (spec.pod_template.image if spec.pod_template else None) or settings.job.image


def queued(spec: LMFineTuneSpec, settings: OperatorSettings) -> bool:
    """Whether a queue controller decides when the Job starts."""
    labels = (spec.pod_template.labels if spec.pod_template else None) or {}
    return QUEUE_LABEL in labels or QUEUE_LABEL in settings.job.labels


def requirements(spec: LMFineTuneSpec, settings: OperatorSettings, rules: PolicyRules, gpus: int) -> PodRequirements:
    """What the pod of an attempt requires of a node; ``rules`` are those of its namespace."""
    template = spec.pod_template or PodTemplate()
    return PodRequirements(
        requests=demand(spec.resources or Resources(), gpus, settings.job, rules).requests,
        selector=(template.node_selector or {}) | settings.job.node_selector,
        tolerations=(*(settings.job.gpu_tolerations if gpus else ()), *(template.tolerations or ())),
    )


def build(
    plan: Plan, run: RunFacts, spec: LMFineTuneSpec, settings: OperatorSettings, rules: PolicyRules, ca: str | None
) -> dict[str, Any]:
    """The Job of an attempt.

    Args:
        plan: the attempt to build for.
        run: the LMFineTune, which owns the Job.
        spec: with the platform's defaults (:func:`with_defaults`).
        settings: the operator's settings.
        rules: policy of the namespace.
        ca: PEM text of the progress server's authority; None if pods are not to report.
    """
    template, spec = spec.pod_template or PodTemplate(), _of_attempt(spec, plan)
    ours = {
        "app.kubernetes.io/managed-by": "lmfinetune",
        RUN_LABEL: run.uid,
        ATTEMPT_LABEL: str(plan.attempt),
        STAGE_LABEL: plan.stage.value,
    }
    labels = (template.labels or {}) | settings.job.labels | ours
    annotations = (template.annotations or {}) | settings.job.annotations
    run_file = RunFile(
        name=run.key.name,
        namespace=run.key.namespace,
        uid=run.uid,
        attempt=plan.attempt,
        stage=plan.stage,
        allow_user_code=rules.user_code,
        allow_remote_code=rules.trust_remote_code,
        # Left out where it forbids nothing: images of release 0.1 do not know this field.
        source_patterns=None if set(rules.sources.uris) >= _EVERY_FILE else list(rules.sources.uris),
        resume_model_uri=plan.resume_model_uri,
        image=image_of(spec, settings),
        gpu_memory=gpu_memory(
            spec.resources or Resources(), (template.node_selector or {}) | settings.job.node_selector, settings.job
        ),
        grace_seconds=settings.job.termination_grace_period_seconds,
        spec=spec,
    )
    handed = {
        RUN_ANNOTATION: json.dumps(run_file.to_json(), separators=(",", ":"), ensure_ascii=False),
        DEFAULT_CONTAINER: CONTAINER,
    }
    if settings.progress.url and ca:
        handed[CA_ANNOTATION] = ca
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.key.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    job: dict[str, Any] = {
        "backoffLimit": 0,
        # A queue may preempt and readmit the Job: never two pods at a time in one attempt's folder.
        "podReplacementPolicy": "Failed",
        # Nor a second pod where the cluster's policies raise backoffLimit.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]},
                },
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {
            "metadata": {"labels": labels, "annotations": annotations | handed},
            "spec": _pod(plan, spec, settings, rules, CA_ANNOTATION in handed),
        },
    }
    if queued(spec, settings):
        job["suspend"] = True
    made: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _without_empty(
            {
                "name": plan.name,
                "namespace": run.key.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner],
            }
        ),
        "spec": job,
    }
    if plan.nodes > 1:
        service, rendezvous = peers.service_name(run.uid, plan.attempt), settings.job.rendezvous_seconds
        peers.spread(made, plan.name, service, plan.nodes, max(1, plan.gpus), rendezvous)
    elif plan.gpus > 1:
        peers.meet(made, 1, plan.gpus, "127.0.0.1")
    return made


def _of_attempt(spec: LMFineTuneSpec, plan: Plan) -> LMFineTuneSpec:
    """The spec with the devices that this attempt gets, which may be fewer than are wanted.

    An attempt that only fetches a result that was lost has neither peers nor GPUs: one process answers.
    """
    resources = spec.resources
    if resources is None or plan.stage == Stage.PREPARE:
        return spec
    fewer: dict[str, Any] = {} if plan.nodes == (resources.nodes or 1) else {"nodes": plan.nodes}
    if not plan.gpus and (resources.gpus_per_node or 0) > 1:
        fewer["gpus_per_node"] = 1
    if resources.elastic is not None and plan.nodes <= (resources.elastic.min_nodes or 1):
        fewer["elastic"] = None  # it would not be valid with so few
    return spec.model_copy(update={"resources": resources.model_copy(update=fewer)}) if fewer else spec


def _pod(
    plan: Plan, spec: LMFineTuneSpec, settings: OperatorSettings, rules: PolicyRules, progress: bool
) -> dict[str, Any]:
    job, template = settings.job, spec.pod_template or PodTemplate()
    asks = demand(spec.resources or Resources(), plan.gpus, job, rules)
    node = requirements(spec, settings, rules, plan.gpus)
    volumes, mounts = _volumes(plan.stage, spec, settings, asks, progress)
    pull = [*job.image_pull_secrets, *(secret.name for secret in template.image_pull_secrets or ())]
    user = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), job.user_id)  # None: the platform assigns IDs itself
    security = {
        "runAsNonRoot": True,
        **user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": CONTAINER,
        "image": image_of(spec, settings),
        "imagePullPolicy": job.image_pull_policy,
        "env": _env(settings, template, progress),
        "resources": _without_empty({"requests": asks.requests, "limits": asks.limits}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": str(TERMINATION_LOG),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return _without_empty(
        {
            "restartPolicy": "Never",
            "serviceAccountName": template.service_account_name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": job.termination_grace_period_seconds,
            "nodeSelector": node.selector,
            "tolerations": [toleration.to_json() for toleration in node.tolerations],
            "priorityClassName": template.priority_class_name,
            "runtimeClassName": template.runtime_class_name,
            "imagePullSecrets": [{"name": name} for name in dict.fromkeys(pull)],
            "securityContext": _without_empty(security),
            "containers": [container],
            "volumes": volumes,
        }
    )


def _env(settings: OperatorSettings, template: PodTemplate, progress: bool) -> list[dict[str, Any]]:
    """Environment variables; later groups win: paths, the platform's, the manifest's, how to report progress."""
    variables = {
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of the pod's own
        "USER": "lmft",  # the numeric user has no name, and torch needs one
        "XDG_CACHE_HOME": "/cache",
        "HF_HOME": "/cache/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "TRITON_CACHE_DIR": "/cache/triton",
    }
    defaults = settings.defaults
    if settings.job.ca_bundle_config_map:
        bundle = f"{CA_BUNDLE_FOLDER}/ca.crt"
        variables |= {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle, "AWS_CA_BUNDLE": bundle}
    variables |= {
        name: value
        for name, value in (("AWS_ENDPOINT_URL", defaults.endpoint_url), ("AWS_REGION", defaults.region))
        if value
    }
    variables |= settings.job.env
    variables |= {variable.name: variable.value for variable in template.env or ()}
    # The manifest cannot change this one, whatever policy says of its variables.
    variables[NO_NODE_ROLE] = "false" if settings.job.node_cloud_role else settings.job.env.get(NO_NODE_ROLE, "true")
    if progress:
        variables |= {
            SERVER_URL_VARIABLE: str(settings.progress.url),
            CA_VARIABLE: str(CA_FILE),
            TOKEN_VARIABLE: str(TOKEN_FILE),
        }
    # Kubernetes expands $(NAME) in values; a doubled dollar sign stands for itself.
    given: list[dict[str, Any]] = [
        {"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()
    ]
    return [*given, {"name": POD_UID_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]


def _volumes(
    stage: Stage, spec: LMFineTuneSpec, settings: OperatorSettings, asks: Demand, progress: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    job, template = settings.job, spec.pod_template or PodTemplate()
    scratch: dict[str, Any] = {"emptyDir": {"sizeLimit": asks.scratch} if asks.scratch else {}}
    shared = job.cache_volume_claim
    cache: dict[str, Any] = {"persistentVolumeClaim": {"claimName": shared}} if shared else scratch
    handed = [_annotation(RUN_ANNOTATION, RUN_FILE.name)]
    volumes: list[dict[str, Any]] = [
        {"name": "lmft-tmp"} | scratch,
        {"name": "lmft-cache"} | cache,
        {"name": "lmft-shm", "emptyDir": {"medium": "Memory", "sizeLimit": asks.shared_memory}},
        {"name": "lmft-run", "downwardAPI": {"items": handed}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "lmft-tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "lmft-cache", "mountPath": "/cache"},
        {"name": "lmft-shm", "mountPath": "/dev/shm"},  # noqa: S108
        # By subPath: a volume over the whole folder would leave nowhere to mount the Secrets below it.
        {"name": "lmft-run", "mountPath": str(RUN_FILE), "subPath": RUN_FILE.name, "readOnly": True},
    ]
    for folder, name, key in _secrets(stage, spec):
        source: dict[str, Any] = {"secretName": name, "defaultMode": 0o440}
        if key is not None:
            source["items"] = [{"key": key, "path": key}]
        volumes.append({"name": f"lmft-secret-{folder}", "secret": source})
        mounts.append({"name": f"lmft-secret-{folder}", "mountPath": str(SECRETS_FOLDER / folder), "readOnly": True})
    if job.ca_bundle_config_map:
        volumes.append({"name": "lmft-ca", "configMap": {"name": job.ca_bundle_config_map}})
        mounts.append({"name": "lmft-ca", "mountPath": CA_BUNDLE_FOLDER, "readOnly": True})
    if progress:
        token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE.name}
        handed.append(_annotation(CA_ANNOTATION, CA_FILE.name))
        mounts.append({"name": "lmft-run", "mountPath": str(CA_FILE), "subPath": CA_FILE.name, "readOnly": True})
        volumes.append({"name": "lmft-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
        mounts.append({"name": "lmft-token", "mountPath": str(TOKEN_FILE.parent), "readOnly": True})
    for index, volume in enumerate(template.volumes or ()):
        # The number distinguishes names that are the same once they are cut.
        name = f"user-{index}-{volume.name}"[:MAX_NAME].rstrip("-")
        claim = _without_empty({"claimName": volume.claim_name, "readOnly": volume.read_only})
        volumes.append({"name": name, "persistentVolumeClaim": claim})
        mounts.append(_without_empty({"name": name, "mountPath": volume.mount_path, "readOnly": volume.read_only}))
    return volumes, mounts


def _secrets(stage: Stage, spec: LMFineTuneSpec) -> list[tuple[str, str, str | None]]:
    """Folder, Secret and, if only one key is wanted, the key."""
    named: list[tuple[str, SecretRef | None]] = [
        ("output", spec.output.credentials_secret_ref if spec.output else None),
        ("dataset", spec.dataset.credentials_secret_ref),
        ("model", spec.model.credentials_secret_ref),
    ]
    secrets: list[tuple[str, str, str | None]] = [(folder, ref.name, None) for folder, ref in named if ref is not None]
    if spec.hub_token_secret_ref is not None:
        secrets.append(("hub", spec.hub_token_secret_ref.name, spec.hub_token_secret_ref.key))
    if stage != Stage.PREPARE:  # which has nothing to send
        secrets += [(name, reference.name, None) for name, reference in tracker_secrets(spec.report_to)]
    return secrets


def _annotation(name: str, path: str) -> dict[str, Any]:
    return {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}}


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value not in ([], {})}
