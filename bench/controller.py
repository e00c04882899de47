"""The operator under load, against a bare client that creates the same Jobs, on one API server in one run.

    python bench/controller.py [--runs 1000 5000] [--alone 50] [--rest 60]

Uses KUBECONFIG, which must point at a cluster to play with (``tests/cluster/local/cluster --control-plane up`` makes
one: no kubelet is needed, the bench plays it for a sample of the runs). The operator runs as a process of its own.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from lmft_api import API_VERSION, KIND, PLURAL
from lmft_api.generate.crd import crd as custom_resource_definition
from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.run_file import Stage
from lmft_operator.cluster.access import find
from lmft_operator.domain.facts import Key, RunFacts
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest
from lmft_operator.settings import OperatorSettings

CONNECTIONS = 16
START = "import sys; sys.modules['kubernetes'] = None; from lmft_operator.main import main; main()"
"""As in the operator's image, which lacks the official client: where that is installed, kopf imports all of it."""
PROBES_PORT, METRICS_PORT = 18099, 18098
SPEC = {
    "model": {"fromConfig": {"model_type": "gpt2", "n_layer": 2}, "tokenizer": {"trainVocabSize": 500}},
    "dataset": {"builtin": "PythonDocs"},
    "output": {"uri": "s3://models/bench"},
}
RUNS = f"/apis/{API_VERSION}/namespaces/{{}}/{PLURAL}"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"


class Api:
    """A bare client: one session, plain JSON."""

    def __init__(self, host: str, session: aiohttp.ClientSession) -> None:
        self._host, self._session = host, session

    @classmethod
    async def connect(cls) -> "Api":
        access = find()
        connector = aiohttp.TCPConnector(limit=CONNECTIONS + 4, ssl=access.tls)
        headers = {"Authorization": f"Bearer {token}"} if (token := access.token()) else {}
        return cls(access.server, aiohttp.ClientSession(connector=connector, headers=headers))

    async def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        async with self._session.request(
            method, self._host + path, data=json.dumps(body) if body is not None else None,
            headers={"Content-Type": content},
        ) as answer:  # fmt: skip
            data = await answer.read()
            if answer.status >= 400 and answer.status not in (404, 409):
                raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
            return json.loads(data)

    async def watch(self, path: str) -> AsyncIterator[Any]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._host + path, timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)

    async def close(self) -> None:
        await self._session.close()


async def crowd(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Do ``work(0..count-1)`` over as many connections as the peer was measured with."""
    numbers = iter(range(count))

    async def one() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def run_body(namespace: str, name: str) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}, "spec": SPEC}


async def fresh_namespace(api: Api, name: str) -> None:
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


async def bare(api: Api, count: int) -> float:
    """Jobs a second of a client that does nothing but create them."""
    namespace = f"bare-{count}-{int(time.time())}"
    await fresh_namespace(api, namespace)
    settings, spec = OperatorSettings(), parse_spec(SPEC)

    async def create(number: int) -> None:
        run = RunFacts(Key(namespace, f"run-{number}"), f"uid-{number}", "1", 1, 0.0, False, "", "")
        plan = Plan(f"run-{number}-1", 1, Stage.ALL, 0)
        job = manifest.build(plan, run, spec, settings, settings.policy, None)
        del job["metadata"]["ownerReferences"]
        await api.call("POST", JOBS.format(namespace), job)

    started = time.perf_counter()
    await crowd(create, count)
    rate = count / (time.perf_counter() - started)
    await clear(api, namespace, JOBS)
    return rate


async def clear(api: Api, namespace: str, path: str) -> None:
    query = "?propagationPolicy=Background"
    for kind in dict.fromkeys((path, JOBS)):
        await api.call("DELETE", kind.format(namespace) + query)
    await api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0")
    while (await api.call("GET", JOBS.format(namespace) + "?limit=1")).get("items"):
        await asyncio.sleep(0.5)


class Operator:
    """The operator as a process; ``settings`` are added to its configuration."""

    def __init__(self, settings: str = "") -> None:
        folder = Path(tempfile.mkdtemp())
        (folder / "config.yaml").write_text(
            f"probes: {{port: {PROBES_PORT}}}\nmetrics: {{port: {METRICS_PORT}}}\nlogLevel: WARNING\n{settings}"
        )
        environment = dict(os.environ) | {"LMFT_OPERATOR_CONFIG": str(folder / "config.yaml")}
        self.log = folder / "log"
        self.process = subprocess.Popen([sys.executable, "-c", START], env=environment, stderr=self.log.open("w"))
        self.peak = 0.0

    async def ready(self) -> None:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PROBES_PORT}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                await asyncio.sleep(0.05)
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text())

    def memory(self) -> float:
        """Resident MiB now; remembers the peak."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        now = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.peak = max(self.peak, now)
        return now

    def cpu(self) -> float:
        """CPU seconds used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def samples(self) -> dict[str, float]:
        """Its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def writes(self) -> float:
        """Requests to the API server that change something."""
        return sum(
            value for name, value in self.samples().items()
            if name.startswith("lmft_api_requests_total{") and 'verb="GET"' not in name
        )  # fmt: skip

    def stop(self) -> float:
        """SIGTERM; seconds until it has gone."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.perf_counter() - started


class JobsSeen:
    """When each Job appeared, by name, from a watch."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.at: dict[str, float] = {}
        self._task = asyncio.create_task(self._watch(api, namespace))

    async def _watch(self, api: Api, namespace: str) -> None:
        async for event in api.watch(JOBS.format(namespace) + "?watch=true"):
            if event["type"] == "ADDED":
                self.at[event["object"]["metadata"]["name"]] = time.perf_counter()

    async def wait_for(self, count: int, tick: Callable[[], Any]) -> None:
        while len(self.at) < count:
            if self._task.done():
                self._task.result()
            tick()
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._task.cancel()


async def burst(api: Api, operator: Operator, namespace: str, count: int) -> dict[str, float]:
    """Create runs as fast as a client can; how fast do their Jobs come?"""
    await fresh_namespace(api, namespace)
    seen, asked = JobsSeen(api, namespace), dict[str, float]()
    await asyncio.sleep(0.5)

    async def create(number: int) -> None:
        name = f"run-{number}"
        asked[f"{name}-1"] = time.perf_counter()
        await api.call("POST", RUNS.format(namespace), run_body(namespace, name))

    started, cpu = time.perf_counter(), operator.cpu()
    creating = asyncio.create_task(crowd(create, count))
    await seen.wait_for(count, operator.memory)
    await creating
    seen.stop()
    took = max(seen.at.values()) - started
    waits = [seen.at[name] - asked[name] for name in asked]
    return {"rate": count / took, "cpu_ms_a_run": 1000 * (operator.cpu() - cpu) / count} | quantiles(waits)


async def alone(api: Api, namespace: str, count: int) -> dict[str, float]:
    """One run at a time: from the request to the Job."""
    await fresh_namespace(api, namespace)
    seen, waits = JobsSeen(api, namespace), list[float]()
    await asyncio.sleep(0.5)
    for number in range(count):
        started = time.perf_counter()
        await api.call("POST", RUNS.format(namespace), run_body(namespace, f"run-{number}"))
        while f"run-{number}-1" not in seen.at:
            await asyncio.sleep(0.0005)
        waits.append(seen.at[f"run-{number}-1"] - started)
        await asyncio.sleep(0.05)
    seen.stop()
    return quantiles(waits)


async def quiet(operator: Operator, patience: float = 120) -> None:
    """Until the operator has nothing to do."""
    until = time.monotonic() + patience
    before = -1.0
    while time.monotonic() < until:
        now = operator.samples()
        done = now.get('lmft_reconciles_total{outcome="ok"}', 0.0)
        if now["lmft_queue_ready"] == 0 and done == before:
            return
        before = done
        operator.memory()
        await asyncio.sleep(1)


async def finish(api: Api, operator: Operator, namespace: str, names: Iterable[str]) -> float:
    """Play kubelet for some runs, start to end; writes of the operator for each, from the Job on."""
    names = list(names)
    before = operator.writes()
    pods = [p for p in (await api.call("GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]
            if p["metadata"]["labels"].get("job-name") in names]  # fmt: skip
    result = {"reason": "Completed", "message": "done", "results": {"perplexity": "12.3", "modelURI": "s3://m"}}
    started = now()
    ended = {"exitCode": 0, "startedAt": started, "finishedAt": started, "message": json.dumps(result)}
    for phase, state in (("Running", {"running": {"startedAt": started}}), ("Succeeded", {"terminated": ended})):
        for pod in pods:
            await play_kubelet(api, pod, phase, state)
        await asyncio.sleep(3)
    return (operator.writes() - before) / max(len(pods), 1) if pods else float("nan")


async def play_kubelet(api: Api, pod: dict[str, Any], phase: str, state: dict[str, Any]) -> None:
    """Write a pod's phase and the state of its container."""
    status = {"name": "job", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
    change = {"status": {"phase": phase, "containerStatuses": [status]}}
    await api.call("PATCH", path, change, "application/merge-patch+json")


async def explained(api: Api, namespace: str, names: Iterable[str]) -> dict[str, float]:
    """From a pod that exits with 1 and no word to the reason in its run's status, one run at a time."""
    wanted, waits = set(names), list[float]()
    for pod in (await api.call("GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]:
        job = pod["metadata"]["labels"].get("job-name")
        if job not in wanted:
            continue
        state = {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}}
        started = time.perf_counter()
        await play_kubelet(api, pod, "Failed", state)
        while True:
            run = await api.call("GET", f"{RUNS.format(namespace)}/{job.removesuffix('-1')}")
            if run["status"]["attempts"][0].get("reason"):
                break
            await asyncio.sleep(0.005)
        waits.append(time.perf_counter() - started)
    return quantiles(waits)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quantiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": 1000 * statistics.median(seconds), "p99_ms": 1000 * cuts[98]}


def say(label: str, **figures: float) -> None:
    print(f"{label:34}" + "  ".join(f"{name} {value:,.1f}" for name, value in figures.items()), flush=True)


async def measure(sizes: list[int], singles: int, rest: float) -> None:
    api = await Api.connect()
    crd = custom_resource_definition()
    name = crd["metadata"]["name"]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await api.call("POST", path, crd)
    found = await api.call("GET", f"{path}/{name}")
    crd["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
    await api.call("PUT", f"{path}/{name}", crd)
    await asyncio.sleep(2)
    stamp = int(time.time())
    for count in sizes:
        say(f"bare client, {count} Jobs", jobs_a_second=(rate := await bare(api, count)))
        operator = Operator()
        await operator.ready()
        say("  operator started", MiB=operator.memory())
        if count == sizes[0]:
            say("  one at a time", **await alone(api, f"alone-{stamp}", singles))
        before, namespace = operator.writes(), f"burst-{count}-{stamp}"
        figures = await burst(api, operator, namespace, count)
        await quiet(operator)
        say(f"  burst of {count}", **figures, ratio_to_bare=figures["rate"] / rate)
        say("  writes a run until its pod waits", writes=(operator.writes() - before) / count)
        say("  memory", peak_MiB=operator.peak, rest_MiB=operator.memory())
        before, cpu = operator.writes(), operator.cpu()
        await asyncio.sleep(rest)
        say(f"  at rest, {count} unfinished", writes_a_minute=(operator.writes() - before) * 60 / rest,
            cpu_percent=100 * (operator.cpu() - cpu) / rest)  # fmt: skip
        say("  from the pod's start to the end", writes_a_run=await finish(
            api, operator, namespace, [f"run-{n}-1" for n in range(50)]))  # fmt: skip
        say("  a pod that fails, explained in", **await explained(
            api, namespace, [f"run-{n}-1" for n in range(50, 100)]))  # fmt: skip
        stopped = operator.stop()
        started = time.perf_counter()
        operator = Operator()
        await operator.ready()
        ready = time.perf_counter() - started
        await quiet(operator)
        say(f"  restarted with {count}", stopped_s=stopped, ready_s=ready, quiet_s=time.perf_counter() - started - 1,
            writes=operator.writes(), MiB=operator.memory())  # fmt: skip
        await clear(api, namespace, RUNS)
        operator.stop()
    await api.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--alone", type=int, default=50)
    parser.add_argument("--rest", type=float, default=60)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.runs, chosen.alone, chosen.rest))
