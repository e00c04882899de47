"""Settings of the operator: one YAML file, mounted from the chart's ConfigMap, parsed once at the start.

The path is ``LMFT_OPERATOR_CONFIG``, by default ``/etc/lmft-operator/config.yaml``. Keys are camelCase; an unknown key
or a wrong type stops the operator with the field's path, so that a typing error never turns into a silent default.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from lmft_api.manifest.reader import read_yaml
from lmft_api.schema.rules import amount
from lmft_api.schema.types import ApiModel, Quantity, StorageUri
from lmft_api.spec.pod import Toleration
from lmft_api.status import MAX_ATTEMPTS_KEPT
from lmft_operator.process.limits import Limits

CONFIG_VARIABLE = "LMFT_OPERATOR_CONFIG"
DEFAULT_CONFIG = "/etc/lmft-operator/config.yaml"

Seconds = Annotated[float, Field(ge=0, strict=False)]
Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """The settings file cannot be used; the message names the file and every wrong field."""


class Section(ApiModel):
    """A part of the file: camelCase, unknown keys refused."""


class DefaultSettings(Section):
    """What a manifest may leave out."""

    output_uri: StorageUri | None = None
    """``spec.output.uri`` of runs that set none, such as ``s3://models``."""
    endpoint_url: str | None = None
    """AWS_ENDPOINT_URL of every pod; a key of that name in a run's Secret wins."""
    region: str | None = None
    """AWS_REGION of every pod; a key of that name in a run's Secret wins."""
    credentials_secret_name: str | None = None
    """Secret for the output, in the namespace of the run, when ``spec.output.credentialsSecretRef`` is not set."""
    hub_token_secret_name: str | None = None
    """Secret with the key ``token``, in the namespace of the run, when ``spec.hubTokenSecretRef`` is not set."""


def _positive(quantity: str) -> str:
    if amount(quantity) <= 0:
        raise ValueError("must be more than 0, which Kubernetes reads as no limit; null sets none")
    return quantity


Positive = Annotated[Quantity, AfterValidator(_positive)]


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
    """How the pods look."""

    image: str = "lmfinetune-job:latest"
    """Image of the job."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets, in the namespace of the run, for pulling the image."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of every run: hub mirror, proxy, offline switch. Values are literal; ``spec.podTemplate.env`` adds to
    them and cannot change them."""
    ca_bundle_config_map: str | None = None
    """ConfigMap, in the namespace of the run, with the key ``ca.crt``: all authorities that the pods trust."""
    cache_volume_claim: str | None = None
    """PersistentVolumeClaim, in the namespace of the run, shared as /cache. Default: an emptyDir for each pod."""
    node_cloud_role: bool = False
    """Whether pods may sign S3 requests with the cloud role of their node, through the metadata service. Roles bound to
    a service account do not depend on it."""
    resources: JobResources = JobResources()
    """Defaults of ``spec.resources``."""
    gpu_resource_name: str = "nvidia.com/gpu"
    """Extended resource that counts GPUs, unless ``spec.resources.gpuResourceName`` says otherwise."""
    gpu_tolerations: tuple[Toleration, ...] = ()
    """Added to pods that ask for a GPU."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of every Job and pod; ``spec.podTemplate.labels`` adds to them and cannot change them."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of every Job and pod; ``spec.podTemplate.annotations`` adds to them and cannot change them."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Node labels for every pod; ``spec.podTemplate.nodeSelector`` adds to it and cannot change it."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Time a pod has, after SIGTERM, to save and upload a checkpoint."""
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
    max_gpus: Annotated[int, Field(ge=0)] | None = None
    """Most GPUs of a run."""
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
    annotation_keys: tuple[str, ...] = ("cluster-autoscaler.kubernetes.io/safe-to-evict",)
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
        """The rules that hold in a namespace."""
        rules: dict[str, Any] = {name: getattr(self, name) for name in PolicyRules.model_fields}
        exception = self.per_namespace.get(namespace)
        if exception is not None:
            rules |= _laid_over(self, exception)
        return PolicyRules.model_construct(**rules)


def _laid_over(base: Section, exception: Section) -> dict[str, Any]:
    """The fields that the exception gives, by name; of a part such as ``sources`` those it leaves out stay too."""
    fields = {}
    for name in exception.model_fields_set:
        below, value = getattr(base, name), getattr(exception, name)
        fields[name] = below.model_copy(update=_laid_over(below, value)) if isinstance(value, Section) else value
    return fields


class WatchSettings(Section):
    """What the operator looks at."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty means all."""
    server_timeout_seconds: Annotated[int, Field(ge=10)] = 300
    """Longest watch request before it is renewed."""
    stale_seconds: Seconds = 60.0
    """A write that the watch does not show for so long, though the API server answers, means a dead watch."""
    resync_seconds: Seconds = 300.0
    """How often the caches are compared with the API server's lists."""


class ProgressSettings(Section):
    """Where pods report their progress; without ``url`` they do not."""

    url: str | None = None
    """Address for the pods, such as ``https://lmfinetune-progress.lmft-system.svc:8443``."""
    host: str = ""
    """Address the operator serves it on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8443
    """Port the operator serves it on."""
    cert_file: str = "/etc/lmft-operator/progress-tls/tls.crt"
    """Serving certificate; read again when it changes."""
    key_file: str = "/etc/lmft-operator/progress-tls/tls.key"
    """Its key."""
    ca_file: str = "/etc/lmft-operator/progress-tls/ca.crt"
    """Authority that the pods trust for it; handed to them as an annotation."""
    patch_seconds: Seconds = 30.0
    """Shortest time between two progress patches of a run; phases and evaluations do not wait."""
    stale_seconds: Seconds = 300.0
    """A run that has reported and then not for so long is shown as Stalled."""


class RetrySettings(Section):
    """When to try again."""

    initial_seconds: Seconds = 10.0
    """Wait before the first retry; doubles with every failure."""
    max_seconds: Seconds = 300.0
    """Longest wait."""
    default_max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """``spec.maxRetries`` of runs that set none."""
    max_idle_interruptions: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS_KEPT - 1)] = 10
    """Interruptions in a row without a newer checkpoint before the run is given up; a higher spec.maxRetries wins."""
    pod_end_margin_seconds: Seconds = 30.0
    """How much longer than its grace period an old pod may take before the next attempt starts beside it."""


class ApiSettings(Section):
    """How the operator talks to the API server."""

    request_timeout_seconds: Seconds = 30.0
    """Whole request."""
    connect_timeout_seconds: Seconds = 5.0
    """Connection."""
    connections: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests in flight."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Resources reconciled at a time."""


class LeaderSettings(Section):
    """The Lease by which one of several operators decides."""

    namespace: str | None = None
    """Where the Lease is; None: there is none, and this operator always decides."""
    name: str = "lmfinetune"
    """Name of the Lease."""
    lease_seconds: Annotated[int, Field(ge=3, le=600)] = 15
    """Unrenewed for so long, another operator takes it."""
    renew_seconds: Annotated[float, Field(ge=1, le=600, strict=False)] = 10.0
    """A holder that could not renew it for so long writes nothing more and ends."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=600, strict=False)] = 2.0
    """Between two looks at it, and two renewals."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError("retrySeconds must be less than renewSeconds, and that less than leaseSeconds")
        return self


class ConnectionSettings(Section):
    """How many connections each port of the operator takes."""

    max_per_port: Annotated[int, Field(ge=16, le=16384)] = 512
    """On each port; then the oldest one that has proven nothing makes room."""
    max_per_source: Annotated[int, Field(ge=8, le=16384)] | None = None
    """From one address; None: half of a port's. Where the network shows all pods under one address, as with
    masquerading, set it to the port's."""

    def limits(self) -> Limits:
        """Bounds of a port."""
        return Limits(most=self.max_per_port, per_source=self.max_per_source or self.max_per_port // 2)


class ProbeSettings(Section):
    """Where kubelet asks whether the operator lives."""

    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8081
    """Port of /healthz and /readyz."""


class MetricsSettings(Section):
    """Where Prometheus asks."""

    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8080
    """Port of /metrics."""
    secure: bool = False
    """HTTPS, with the certificate of ``progress``, for those alone whom the API server lets get ``/metrics``."""


class OperatorSettings(Section):
    """The whole file."""

    defaults: DefaultSettings = DefaultSettings()
    """What a manifest may leave out."""
    job: JobSettings = JobSettings()
    """How the pods look."""
    policy: Policy = Policy()
    """What manifests may name."""
    watch: WatchSettings = WatchSettings()
    """What the operator looks at."""
    progress: ProgressSettings = ProgressSettings()
    """Where pods report."""
    retries: RetrySettings = RetrySettings()
    """When to try again."""
    api: ApiSettings = ApiSettings()
    """How the operator talks to the API server."""
    leader: LeaderSettings = LeaderSettings()
    """Which of several operators decides."""
    connections: ConnectionSettings = ConnectionSettings()
    """How many connections each port takes."""
    probes: ProbeSettings = ProbeSettings()
    """Where kubelet asks."""
    metrics: MetricsSettings = MetricsSettings()
    """Where Prometheus asks."""
    documentation_url: str | None = "https://github.com/lmfinetune/lmfinetune/blob/main/docs/troubleshooting.md"
    """Page that explains the reasons, an anchor for each: messages that ask for help lead there. None: they do not."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """From which level on the log is written."""


def load(path: str | None = None) -> OperatorSettings:
    """Read the settings file; an absent one gives the defaults.

    Raises:
        SettingsError: the file cannot be read or is not YAML, or a field is unknown or wrong; all of them are listed.
    """
    file = Path(path or os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    if not file.exists():
        if path or CONFIG_VARIABLE in os.environ:
            raise SettingsError(f"{file}: no such file")
        return OperatorSettings()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as problem:
        raise SettingsError(f"{file} cannot be read: {problem}") from problem
    return parse(text, str(file))


def parse(text: str, name: str = "settings") -> OperatorSettings:
    """Settings from YAML text; ``name`` is what messages call it."""
    try:
        body: Any = read_yaml(text)
    except ValueError as problem:
        raise SettingsError(f"{name} {problem}") from problem
    try:
        # By way of JSON: strict types take enums from JSON text, not from Python strings.
        return OperatorSettings.model_validate_json(json.dumps(body or {}))
    except ValidationError as problems:
        lines = [
            f"  {'.'.join(map(str, p['loc'])) or 'the file'}: {_worded(p['type'], p['msg'])}" for p in problems.errors()
        ]
        count = "1 wrong field" if len(lines) == 1 else f"{len(lines)} wrong fields"
        raise SettingsError(f"{name}: {count}\n" + "\n".join(lines)) from problems


def _worded(kind: str, message: str) -> str:
    return "unknown field" if kind == "extra_forbidden" else message
