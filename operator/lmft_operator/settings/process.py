"""About the operator itself: what it watches, when it retries, and the ports it serves."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lmft_api.schema.types import DnsLabel
from lmft_api.status import MAX_ATTEMPTS_KEPT
from lmft_operator.process.limits import Limits
from lmft_operator.settings.types import Port, Seconds, Section


class WatchSettings(Section):
    """What the operator looks at."""

    namespaces: tuple[DnsLabel, ...] = ()
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
