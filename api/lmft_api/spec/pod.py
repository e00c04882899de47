"""How a run fits into the cluster: resources and the pod template."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from lmft_api.schema.patterns import IMAGE_PATTERN, MOUNT_PATH_PATTERN, VARIABLE_PATTERN
from lmft_api.schema.rules import Rule, only_with, quantity_rule, total
from lmft_api.schema.types import ApiModel, DnsLabel, DnsSubdomain, LabelValue, QualifiedName, Quantity, list_map

MANAGED_LABEL_PREFIX = "lmfinetune.dev/"
SYSTEM_FOLDERS = (
    *("/app", "/bin", "/boot", "/cache", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run"),
    *("/sbin", "/sys", "/tmp", "/usr", "/var"),  # noqa: S108 - names to keep away from, not files to write
)
"""Folders of the image and of the pod that a volume must not hide: code would come from it."""


class SecretRef(ApiModel):
    """A Secret in the namespace of the run; it is mounted as files and never read by the operator."""

    name: DnsSubdomain
    """Name of the Secret."""


QUANTITY_BOUNDS = {
    "cpu": ("cpu", "1m", "4096"),
    "memory": ("memory", "16Mi", "128Ti"),
    "ephemeralStorage": ("ephemeral_storage", "16Mi", "1Pi"),
    "sharedMemory": ("shared_memory", "1Mi", "128Ti"),
    "gpuMemory": ("gpu_memory", "1Gi", "4Ti"),
}
"""Least and most of each quantity: 16Mi is less than any container starts with, and no node has as much as the most."""


class Elastic(ApiModel):
    """Fewer nodes rather than none: what to do while the cluster has no room for all of them."""

    min_nodes: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Fewest nodes to train on. Default: 1."""
    wait_seconds: Annotated[int, Field(ge=60, le=86_400)] | None = None
    """How long pods may be unschedulable before the run goes on with those that are placed. Default: 600."""


class Resources(ApiModel):
    """What the pods ask for, and may use at most; all but nodes is of each pod."""

    nodes: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Pods that train together, for as many nodes; a change takes effect with the next attempt. Default: 1."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs of each pod; 0 trains on the CPU. A change takes effect with the next attempt. Default: 0."""
    elastic: Elastic | None = None
    """Go on with fewer nodes, and the same effective batch, while there is no room for all. Default: wait for all."""
    gpu_resource_name: QualifiedName | None = None
    """Extended resource that counts GPUs. Default: nvidia.com/gpu, or what the platform team configured."""
    gpu_memory: Quantity | None = None
    """Memory of the GPU that the run will get, such as 80Gi: what surely does not fit is refused before a GPU is taken,
    and the batch is chosen to fit. Default: what the platform team configured (job.gpuMemory)."""
    cpu: Quantity | None = None
    """CPUs: the request, and the limit where the platform sets limits (policy.maxCpu). Default request: 1."""
    memory: Quantity | None = None
    """Memory: request and limit. Default: a request of 2Gi, and the limit that the platform sets, if any."""
    ephemeral_storage: Quantity | None = None
    """The node's scratch disk, where caches and checkpoints lie before upload: request and limit. Default: a request of
    4Gi, and the limit that the platform sets, if any."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, which counts as memory. Default: 1Gi."""

    rules: ClassVar = (
        *(quantity_rule(name, *bounds) for name, bounds in QUANTITY_BOUNDS.items()),
        Rule(
            "!has(self.elastic) || (has(self.nodes) && self.nodes > 1 && "
            "(!has(self.elastic.minNodes) || self.elastic.minNodes < self.nodes))",
            "goes with more nodes than elastic.minNodes, of which 1 is the default; raise nodes, or remove it",
            lambda r: r.elastic is None or (r.nodes or 1) > (r.elastic.min_nodes or 1),
            "elastic",
        ),
        only_with(
            "gpuResourceName",
            "has(self.gpusPerNode) && self.gpusPerNode > 0",
            lambda r: bool(r.gpus_per_node),
            "goes with gpusPerNode; set gpusPerNode to 1 or remove it",
        ),
        only_with(
            "gpuMemory",
            "has(self.gpusPerNode) && self.gpusPerNode > 0",
            lambda r: bool(r.gpus_per_node),
            "goes with gpusPerNode; set gpusPerNode to 1 or remove it",
        ),
    )


class TolerationOperator(StrEnum):
    """How a toleration matches."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """Which taints a toleration matches."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A toleration, as in a pod."""

    key: QualifiedName | None = None
    """Taint key; empty with operator Exists matches every taint."""
    operator: TolerationOperator | None = None
    """Equal or Exists. Default: Equal."""
    value: LabelValue | None = None
    """Taint value."""
    effect: TaintEffect | None = None
    """Taint effect; empty matches all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """How long a NoExecute taint is tolerated."""

    rules: ClassVar = (
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "an empty key needs operator Exists; set key or operator: Exists",
            lambda t: t.key is not None or t.operator == TolerationOperator.EXISTS,
        ),
        Rule(
            "!(has(self.operator) && self.operator == 'Exists' && has(self.value))",
            "operator Exists takes no value; remove value",
            lambda t: t.operator != TolerationOperator.EXISTS or t.value is None,
            "value",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds goes with effect NoExecute",
            lambda t: t.toleration_seconds is None or t.effect == TaintEffect.NO_EXECUTE,
            "tolerationSeconds",
        ),
    )


class EnvVar(ApiModel):
    """An environment variable with a plain value; Secrets do not enter the environment."""

    name: Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN, max_length=253)]
    """Name."""
    value: Annotated[str, StringConstraints(max_length=4096)]
    """Value, taken literally: $(NAME) is not expanded."""


class Volume(ApiModel):
    """A PersistentVolumeClaim of the namespace, for file:// data and output."""

    name: DnsLabel
    """Name of the volume in the pod."""
    claim_name: DnsSubdomain
    """Name of the PersistentVolumeClaim."""
    mount_path: Annotated[str, StringConstraints(pattern=MOUNT_PATH_PATTERN, max_length=1024)]
    """Where it appears."""
    read_only: bool | None = None
    """Mount without the right to write."""

    rules: ClassVar = (
        Rule(
            f"!{list(SYSTEM_FOLDERS)}.exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
            "mountPath would hide a part of the image; choose one such as /data or /mnt/models",
            lambda v: not any(v.mount_path == p or v.mount_path.startswith(f"{p}/") for p in SYSTEM_FOLDERS),
            "mountPath",
        ),
    )


class ImagePullSecret(ApiModel):
    """A Secret that lets kubelet pull the image."""

    name: DnsSubdomain
    """Name of the Secret."""


AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]
_MAPS = ("labels", "annotations", "nodeSelector")


def _sizes(pod: Any) -> Iterator[int]:
    """Of the texts of a pod template."""
    for texts in (pod.labels, pod.annotations, pod.node_selector):
        for key in texts or ():
            yield len(key) + len(texts[key])
    for toleration in pod.tolerations or ():
        yield len(toleration.key or "") + len(toleration.value or "")
    for variable in pod.env or ():
        yield len(variable.name) + len(variable.value)
    for volume in pod.volumes or ():
        yield len(volume.name) + len(volume.claim_name) + len(volume.mount_path)


class PodTemplate(ApiModel):
    """What may be said about the pod; the operator sets everything else."""

    labels: Annotated[dict[QualifiedName, LabelValue], Field(max_length=32)] | None = None
    """Labels of the Job and the pod."""
    annotations: Annotated[dict[QualifiedName, AnnotationValue], Field(max_length=32)] | None = None
    """Annotations of the Job and the pod."""
    node_selector: Annotated[dict[QualifiedName, LabelValue], Field(max_length=32)] | None = None
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints the pod tolerates."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the pod."""
    runtime_class_name: DnsSubdomain | None = None
    """RuntimeClass of the pod."""
    service_account_name: DnsSubdomain | None = None
    """ServiceAccount, for example one bound to a cloud role that may write the output. Default: default."""
    image_pull_secrets: (
        Annotated[list[ImagePullSecret], Field(max_length=8, json_schema_extra=list_map("name"))] | None
    ) = None
    """Secrets for pulling the image."""
    image: Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, max_length=1024)] | None = None
    """Another job image, where the policy allows it."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=list_map("name"))] | None = None
    """Environment variables."""
    volumes: Annotated[list[Volume], Field(max_length=8, json_schema_extra=list_map("name"))] | None = None
    """PersistentVolumeClaims to mount."""

    rules: ClassVar = (
        Rule(
            f"!has(self.labels) || !self.labels.exists(k, k.startsWith('{MANAGED_LABEL_PREFIX}'))",
            f"labels with the prefix {MANAGED_LABEL_PREFIX} belong to the operator; choose another prefix",
            lambda p: not any(k.startswith(MANAGED_LABEL_PREFIX) for k in p.labels or {}),
            "labels",
        ),
        Rule(
            f"!has(self.annotations) || !self.annotations.exists(k, k.startsWith('{MANAGED_LABEL_PREFIX}'))",
            f"annotations with the prefix {MANAGED_LABEL_PREFIX} belong to the operator; choose another prefix",
            lambda p: not any(k.startswith(MANAGED_LABEL_PREFIX) for k in p.annotations or {}),
            "annotations",
        ),
        Rule(
            "!has(self.volumes) || self.volumes.all(v, self.volumes.exists_one(w, w.mountPath == v.mountPath))",
            "two volumes have the same mountPath; give each its own",
            lambda p: len({v.mount_path for v in p.volumes or []}) == len(p.volumes or []),
            "volumes",
        ),
        total(
            " + ".join(
                [
                    *(f"(has(self.{m}) ? self.{m}.map(k, size(k) + size(self.{m}[k])).sum() : 0)" for m in _MAPS),
                    "(has(self.tolerations) ? self.tolerations.map(t, (has(t.key) ? size(t.key) : 0) + "
                    "(has(t.value) ? size(t.value) : 0)).sum() : 0)",
                    "(has(self.env) ? self.env.map(e, size(e.name) + size(e.value)).sum() : 0)",
                    "(has(self.volumes) ? "
                    "self.volumes.map(v, size(v.name) + size(v.claimName) + size(v.mountPath)).sum() : 0)",
                ]
            ),
            _sizes,
            8000,
            "",
            "labels, annotations, nodeSelector, tolerations, env and volumes count; take fewer, or shorter ones",
        ),
    )
