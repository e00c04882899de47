"""Defaults for what manifests leave out, settings of their pods, and the policy on what they may name."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmft_api.schema.types import DnsSubdomain, StorageUri
from lmft_api.spec.pod import Toleration
from lmft_operator.settings.types import (
    Annotations,
    GpuKind,
    GpuResource,
    HttpAddress,
    Labels,
    Positive,
    Section,
    Variable,
)


class DefaultSettings(Section):
    """Defaults for what a manifest leaves out."""

    output_uri: StorageUri | None = None
    """``spec.output.uri`` of runs that set none, such as ``s3://models``."""
    endpoint_url: HttpAddress | None = None
    """AWS_ENDPOINT_URL of every pod; a key of that name in a run's Secret wins."""
    region: str | None = None
    """AWS_REGION of every pod; a key of that name in a run's Secret wins."""
    credentials_secret_name: DnsSubdomain | None = None
    """Secret for the output, in the namespace of the run, when ``spec.output.credentialsSecretRef`` is not set."""
    hub_token_secret_name: DnsSubdomain | None = None
    """Secret with the key ``token``, in the namespace of the run, when ``spec.hubTokenSecretRef`` is not set."""


class JobResources(Section):
    """Requests for what ``spec.resources`` leaves out; null means none. Limits are set by ``policy`` alone."""

    cpu: Positive | None = "1"
    """CPU request."""
    memory: Positive | None = "2Gi"
    """Memory request."""
    ephemeral_storage: Positive | None = "4Gi"
    """Request for the node's scratch disk."""
    shared_memory: Positive = "1Gi"
    """Size of /dev/shm."""


class JobSettings(Section):
    """Settings of the pods."""

    image: str = "lmfinetune-job:latest"
    """Image of the job."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    image_pull_secrets: tuple[DnsSubdomain, ...] = ()
    """Secrets, in the namespace of the run, for pulling the image."""
    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment of every run: hub mirror, proxy, offline switch. Values are literal; ``spec.podTemplate.env`` adds to
    them and cannot change them."""
    ca_bundle_config_map: DnsSubdomain | None = None
    """ConfigMap, in the namespace of the run, with the key ``ca.crt``: all authorities that the pods trust."""
    cache_volume_claim: DnsSubdomain | None = None
    """PersistentVolumeClaim, in the namespace of the run, shared as /cache. Default: an emptyDir for each pod."""
    node_cloud_role: bool = False
    """Whether pods may sign S3 requests with the cloud role of their node, through the metadata service. Roles bound to
    a service account do not depend on it."""
    resources: JobResources = JobResources()
    """Defaults of ``spec.resources``."""
    gpu_resource_name: GpuResource = "nvidia.com/gpu"
    """Extended resource that counts GPUs, unless ``spec.resources.gpuResourceName`` says otherwise."""
    gpu_memory: dict[GpuKind, Positive] = Field(default_factory=dict)
    """Memory of GPUs, such as 80Gi, unless ``spec.resources.gpuMemory`` says otherwise: by node label (``name=value``),
    for runs whose nodeSelector has it, or by the extended resource that counts them."""
    gpu_tolerations: tuple[Toleration, ...] = ()
    """Added to pods that ask for a GPU."""
    labels: Labels = Field(default_factory=dict)
    """Labels of every Job and pod; ``spec.podTemplate.labels`` adds to them and cannot change them."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of every Job and pod; ``spec.podTemplate.annotations`` adds to them and cannot change them."""
    node_selector: Labels = Field(default_factory=dict)
    """Node labels for every pod; ``spec.podTemplate.nodeSelector`` adds to it and cannot change it."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Time that a pod has for saving and uploading a checkpoint after SIGTERM."""
    rendezvous_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a pod of a run on several nodes waits for the others, from the start of its container."""
    isolate_peers: bool = True
    """Whether each attempt on several nodes gets a NetworkPolicy by which its pods accept only each other."""
    user_id: Annotated[int, Field(ge=1)] | None = 65532
    """Numeric user, group and fsGroup of the pods; never root. Null leaves them to the platform, such as OpenShift."""


class SourcePolicy(Section):
    """Where models and data may come from; patterns with ``*`` and ``?``."""

    hub: tuple[str, ...] = ("*",)
    """Hub ids of models, tokenizers and data sets; an empty list forbids the hub."""
    uris: tuple[str, ...] = ("s3://*", "file://*")
    """Addresses of models, data and outputs. file:// must lie on one of the manifest's own volumes in any case; of
    ``defaults.outputUri`` each namespace has its own folder, unless a pattern names a folder there."""


class PolicyRules(Section):
    """What manifests may name; patterns with ``*`` and ``?``, an empty list allows none."""

    images: tuple[str, ...] = ()
    """Images besides ``job.image``."""
    service_accounts: tuple[str, ...] = ("default",)
    """Service accounts."""
    secrets: tuple[str, ...] = ("lmft-*",)
    """Secrets of the namespace: credentials, hub token, image pull secrets."""
    volumes: tuple[str, ...] = ()
    """PersistentVolumeClaims of the namespace."""
    sources: SourcePolicy = SourcePolicy()
    """Where models and data may come from."""
    trust_remote_code: bool = False
    """Whether ``spec.model.trustRemoteCode`` may be set."""
    user_code: bool = False
    """Whether ``spec.training.callbacks`` and ``trainerClass`` may be set."""
    push_to_hub: tuple[str, ...] = ("*",)
    """Repositories that ``spec.output.pushToHub`` may name."""
    trackers: tuple[str, ...] = ()
    """Addresses that ``spec.reportTo`` may name, such as ``https://mlflow.example.com/*``; event files for TensorBoard
    are in the run's own folder, and always allowed."""
    max_gpus: Annotated[int, Field(ge=0)] | None = None
    """Most GPUs of a run: nodes times GPUs of each."""
    max_nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Most nodes of a run. Pods of a run on several reach each other over a network that must keep others out."""
    max_cpu: Positive | None = None
    """Most CPUs of a run; the CPU limit of runs that set none in ``spec.resources``."""
    max_memory: Positive | None = None
    """Most memory of a run; the memory limit of runs that set none."""
    max_ephemeral_storage: Positive | None = None
    """Most scratch disk of a run; the limit of runs that set none, of its /tmp and of its /cache."""
    max_shared_memory: Positive | None = None
    """Most /dev/shm of a run."""
    gpu_resource_names: tuple[str, ...] = ("nvidia.com/*", "amd.com/*", "gpu.intel.com/*")
    """``spec.resources.gpuResourceName`` besides ``job.gpuResourceName``: others may be devices of the node."""
    max_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Longest running time; also the deadline of runs that set none."""
    env_names: tuple[str, ...] = (
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_VISIBLE_DEVICES",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_DISABLE_XET",
        "HF_HUB_OFFLINE",
        "LANG",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "TOKENIZERS_PARALLELISM",
        "TRANSFORMERS_VERBOSITY",
        "TZ",
    )
    """Environment variables of ``spec.podTemplate.env``. LD_*, PYTHON* and PATH would be user code; a proxy, another
    hub or another AWS endpoint would see tokens: list them only where all who may create runs are trusted."""
    label_keys: tuple[str, ...] = (
        *("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class", "team", "project", "cost-center"),
    )
    """Keys of ``spec.podTemplate.labels``. Others may make the pod a backend of somebody's Service, or let it through a
    NetworkPolicy."""
    annotation_keys: tuple[str, ...] = (
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "kueue.x-k8s.io/podset-required-topology",
        "kueue.x-k8s.io/podset-preferred-topology",
    )
    """Keys of ``spec.podTemplate.annotations``. Others may steer injectors: sidecars of any image, mounts of any
    Secret, cloud roles, devices."""
    toleration_keys: tuple[str, ...] = ("*",)
    """Taints that ``spec.podTemplate.tolerations`` may name; every taint at once (``""``) and those of the control
    plane (``node-role.kubernetes.io/*``) only when listed in full."""
    priority_classes: tuple[str, ...] = ("*",)
    """PriorityClasses; ``system-*`` only when listed by its full name."""
    runtime_classes: tuple[str, ...] = ("*",)
    """RuntimeClasses."""


class Policy(PolicyRules):
    """The rules, and exceptions by namespace."""

    per_namespace: dict[str, PolicyRules] = Field(default_factory=dict)
    """Rules of single namespaces; the fields given there, also single ones of ``sources``, replace those above."""

    def for_namespace(self, namespace: str) -> PolicyRules:
        """The rules that apply in a namespace."""
        rules: dict[str, Any] = {name: getattr(self, name) for name in PolicyRules.model_fields}
        exception = self.per_namespace.get(namespace)
        if exception is not None:
            rules |= _laid_over(self, exception)
        return PolicyRules.model_construct(**rules)


def _laid_over(base: Section, exception: Section) -> dict[str, Any]:
    """The fields that the exception sets, by name; in sections such as ``sources``, fields it does not set are kept."""
    fields = {}
    for name in exception.model_fields_set:
        below, value = getattr(base, name), getattr(exception, name)
        fields[name] = below.model_copy(update=_laid_over(below, value)) if isinstance(value, Section) else value
    return fields
