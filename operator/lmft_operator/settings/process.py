"""Settings of the operator itself: what it watches, when it retries, and the ports it serves."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lmft_api.schema.types import DnsLabel
from lmft_api.status import MAX_ATTEMPTS_KEPT
from lmft_operator.process.limits import Limits
from lmft_operator.settings.types import Port, Seconds, Section


class WatchSettings(Section):
    """What the operator watches."""

    namespaces: tuple[DnsLabel, ...] = ()
    """Namespaces to serve; empty means all."""
    server_timeout_seconds: Annotated[int, Field(ge=10)] = 300
    """Longest watch request; it is renewed afterwards."""
    stale_seconds: Seconds = 60.0
    """A write that the watch does not show for this long, though the API server answers, means a dead watch."""
    resync_seconds: Seconds = 300.0
    """How often the caches are compared with the API server's lists."""


class ProgressSettings(Section):
    """Where pods report their progress; without ``url`` they do not."""

    url: str | None = None
    """Address for the pods, such as ``https://lmfinetune-progress.lmft-system.svc:8443``."""
    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8443
    """Port to listen on."""
    cert_file: str = "/etc/lmft-operator/progress-tls/tls.crt"
    """Serving certificate; read again when it changes."""
    key_file: str = "/etc/lmft-operator/progress-tls/tls.key"
    """Key of the certificate."""
    ca_file: str = "/etc/lmft-operator/progress-tls/ca.crt"
    """Certificate authority that the pods trust for it; passed to them as an annotation."""
    patch_seconds: Seconds = 30.0
    """Shortest time between two progress patches of a run; phases and evaluations do not wait."""
    stale_seconds: Seconds = 300.0
    """A run that has reported but then not for this long is shown as Stalled."""


class RetrySettings(Section):
    """Retries and waits."""

    initial_seconds: Seconds = 10.0
    """Wait before the first retry; doubles with every failure."""
    max_seconds: Seconds = 300.0
    """Longest wait."""
    default_max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """``spec.maxRetries`` of runs that set none."""
    max_idle_interruptions: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS_KEPT - 1)] = 10
    """Interruptions in a row without a newer checkpoint until the run fails; a higher spec.maxRetries wins."""
    pod_end_margin_seconds: Seconds = 30.0
    """How much longer than its grace period an old pod may take before the next attempt is started anyway."""
    grow_seconds: Seconds = 1800.0
    """From the start of an attempt with fewer nodes than wanted (``spec.resources.elastic``) to the first checkpoint at
    which it may be stopped for the wanted number."""


class ApiSettings(Section):
    """Client of the API server."""

    request_timeout_seconds: Seconds = 30.0
    """Time-out of a request."""
    connect_timeout_seconds: Seconds = 5.0
    """Time-out for connecting."""
    connections: Annotated[int, Field(ge=1, le=256)] = 16
    """Most concurrent requests."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Most runs reconciled at a time."""


class LeaderSettings(Section):
    """The Lease by which one of several operators decides."""

    namespace: str | None = None
    """Namespace of the Lease; None: there is no Lease, and this operator always decides."""
    name: str = "lmfinetune"
    """Name of the Lease."""
    lease_seconds: Annotated[int, Field(ge=3, le=600)] = 15
    """A Lease not renewed for this long is taken by another operator."""
    renew_seconds: Annotated[float, Field(ge=1, le=600, strict=False)] = 10.0
    """A holder that could not renew the Lease for this long stops writing and exits."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=600, strict=False)] = 2.0
    """Time between two looks at the Lease, and between two renewals."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError("retrySeconds must be less than renewSeconds, and that less than leaseSeconds")
        return self


class ConnectionSettings(Section):
    """Connection limits of each port of the operator."""

    max_per_port: Annotated[int, Field(ge=16, le=16384)] = 512
    """Most connections to a port; at the limit, the oldest unauthenticated one is closed."""
    max_per_source: Annotated[int, Field(ge=8, le=16384)] | None = None
    """Most connections from one address; None: half of the port's. Where the network shows all pods under one address,
    as with masquerading, set it to the port's."""

    def limits(self) -> Limits:
        """Connection limits of a port."""
        return Limits(most=self.max_per_port, per_source=self.max_per_source or self.max_per_port // 2)


class ProbeSettings(Section):
    """Port of kubelet's probes."""

    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8081
    """Port of /healthz and /readyz."""


class MetricsSettings(Section):
    """Port of the metrics."""

    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: Port = 8080
    """Port of /metrics."""
    secure: bool = False
    """HTTPS, with the certificate of ``progress``, and only for clients that the API server lets get ``/metrics``."""
