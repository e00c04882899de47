"""Prometheus metrics. Runs are counted from the cache at each scrape, everything else as it happens."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REQUESTS = Counter("lmft_api_requests", "Requests to the API server.", ["verb", "resource", "code"])
RECONCILES = Counter("lmft_reconciles", "Reconciles of a run.", ["outcome"])
RECONCILE_SECONDS = Histogram(
    "lmft_reconcile_seconds", "Duration of one reconcile of a run.", buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)
)
LEADER = Gauge("lmft_leader", "1 in the leader, 0 in a standby.")
QUEUE_READY = Gauge("lmft_queue_ready", "Runs that wait to be reconciled.")
QUEUE_DELAYED = Gauge("lmft_queue_delayed", "Runs with a reconcile scheduled for later.")
UNSERVED = Gauge("lmft_namespaces_unserved", "Namespaces of watchNamespaces that cannot be listed.")
UNSEEN = Gauge("lmft_watch_unseen", "The operator's own writes that its watch has not delivered yet.")
ATTEMPTS = Counter("lmft_attempts_ended", "Attempts that ended.", ["namespace", "reason"])
PROGRESS = Counter(
    "lmft_progress_reports", "Progress reports of pods: accepted, or why they were refused.", ["outcome"]
)
SCRAPES = Counter("lmft_scrapes", "Requests for metrics over HTTPS, answered or refused and why.", ["outcome"])
CONNECTIONS = Gauge("lmft_connections", "Open connections.", ["port"])
DROPPED = Counter(
    "lmft_connections_dropped",
    "Connections closed because no request came in time, or for lack of room.",
    ["port", "reason"],
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
    """Register the gauge of runs; ``rows`` gives namespace, phase and reason of each run."""
    REGISTRY.register(RunsCollector(rows))
