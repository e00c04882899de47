"""What Prometheus sees. Runs are counted from the cache when it asks, the rest as it happens."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REQUESTS = Counter("lmft_api_requests", "Requests to the API server.", ["verb", "resource", "code"])
RECONCILES = Counter("lmft_reconciles", "Looks at a run.", ["outcome"])
RECONCILE_SECONDS = Histogram(
    "lmft_reconcile_seconds", "Time of one look at a run.", buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)
)
LEADER = Gauge("lmft_leader", "1 in the operator that decides, 0 in one that stands by.")
QUEUE_READY = Gauge("lmft_queue_ready", "Runs that wait for a look.")
QUEUE_DELAYED = Gauge("lmft_queue_delayed", "Runs with an appointment.")
UNSERVED = Gauge("lmft_namespaces_unserved", "Namespaces of watchNamespaces that cannot be listed.")
UNSEEN = Gauge("lmft_watch_unseen", "Writes of ours that the watch has not shown yet.")
ATTEMPTS = Counter("lmft_attempts_ended", "Attempts that ended.", ["namespace", "reason"])
PROGRESS = Counter("lmft_progress_reports", "Progress reports of pods, taken or refused and why.", ["outcome"])
SCRAPES = Counter("lmft_scrapes", "Requests for metrics over HTTPS, answered or refused and why.", ["outcome"])
CONNECTIONS = Gauge("lmft_connections", "Open connections.", ["port"])
DROPPED = Counter(
    "lmft_connections_dropped", "Connections closed for want of a request in time, or of room.", ["port", "reason"]
)
SECONDS = Counter("lmft_run_seconds", "Running time of ended attempts.", ["namespace"])
GPU_SECONDS = Counter("lmft_run_gpu_seconds", "Running time of ended attempts times GPUs.", ["namespace"])


class RunsCollector(Collector):
    """Runs by namespace, phase and reason."""

    def __init__(self, rows: Callable[[], Iterable[tuple[str, str, str]]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample for each combination that exists."""
        family = GaugeMetricFamily(
            "lmft_runs", "Runs by namespace, phase and reason.", labels=["namespace", "phase", "reason"]
        )
        for labels, count in Tally(self._rows()).items():
            family.add_metric(list(labels), count)
        yield family


def register_runs(rows: Callable[[], Iterable[tuple[str, str, str]]]) -> None:
    """Have runs counted by a function that gives namespace, phase and reason of each."""
    REGISTRY.register(RunsCollector(rows))
