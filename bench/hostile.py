"""Hostile objects of each kind: the memory an operator takes to start among them, and how long it takes.

    python bench/hostile.py [--kinds depth text objects jobs] [--count 100]

Uses KUBECONFIG, which must point at a cluster to play with, such as ``tests/cluster/local/cluster --control-plane up``
makes; its etcd has to hold a gigabyte and a half. Beside them lies one run of a calm tenant, which must get its Job.
There are a thousand of each kind, but for two of which the API server itself keeps 30 MiB each and takes a second to
take one: a hundred of those.

On two processors, 2026-11-28: 1,000 of text, ready after 9.5 s (3.9 s of the operator's own CPU), 80 MiB at most, the
calm run's Job after 1.1 s. Under a load of 17 by others, the day before: 100 of depth, 56 s (7.0 s), 66 MiB, 2.2 s.
Under a load of 5: 1,000 of jobs, 11 s (4.5 s), 68 MiB, 0.2 s; 100 of objects, 26 s (2.0 s), 69 MiB, 31 s, for the API
server takes that long to answer at all (150 s before namespaces took turns).
"""

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import controller

from lmft_api import API_VERSION, KIND
from lmft_api.generate.crd import crd
from lmft_operator.cluster.access import find

BYTES = 1_200_000
HOSTILE, CALM = "bench-hostile", "bench-calm"
RUNS = f"/apis/{API_VERSION}/namespaces/{{}}/lmfinetunes"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"


def run(number: int, config: str) -> str:
    """A run whose fromConfig is a piece of JSON."""
    spec = {
        "model": {"fromConfig": {"model_type": "gpt2", "x": "CONFIG"}, "tokenizer": {"trainVocabSize": 500}},
        "dataset": {"builtin": "PythonDocs"},
        "output": {"uri": "s3://models/bench"},
    }
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": f"hostile-{number}"}, "spec": spec}
    return json.dumps(body).replace('"CONFIG"', config)


def job(number: int) -> str:
    """A Job with our label that nobody runs, and a megabyte in its environment."""
    container = {"name": "job", "image": "i", "env": [{"name": "A", "value": "x" * BYTES}]}
    labels = {"lmfinetune.dev/run-uid": f"nobody-{number}", "lmfinetune.dev/attempt": "1"}
    return json.dumps(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"hostile-{number}", "labels": labels},
            "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
    )


KINDS: dict[str, tuple[int, str, Callable[[int], str]]] = {
    "depth": (100, RUNS, lambda number: run(number, '{"a":' * 9_000 + "1" + "}" * 9_000)),
    "text": (1000, RUNS, lambda number: run(number, json.dumps("x" * BYTES))),
    "objects": (100, RUNS, lambda number: run(number, "[" + "{}," * (BYTES // 3) + "{}]")),
    "jobs": (1000, JOBS, job),
}
"""How many, where, and one of them."""


class Api:
    """A bare client."""

    def __init__(self) -> None:
        access = find()
        self._server, self._tls = access.server, access.tls

    def call(self, method: str, path: str, body: str = "") -> bytes:
        """The answer's body; an error of 404 or 409 is none."""
        headers = {"Content-Type": "application/json"}
        data = body.encode() or None
        request = urllib.request.Request(self._server + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as problem:
            if problem.code in (404, 409):
                return b""
            raise


def namespace(api: Api, name: str) -> None:
    """Make it, if it is not there."""
    api.call("POST", "/api/v1/namespaces", json.dumps({"metadata": {"name": name}}))


def clear(api: Api, path: str, count: int) -> None:
    """Delete what was made, however slowly."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: api.call("DELETE", f"{path}/hostile-{number}"), range(count)))


def peak(process: int) -> float:
    """Resident MiB that a process had at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(api: Api, kind: str, wanted: int | None) -> None:
    """One kind: fill the cluster, start an operator, and look."""
    usual, template, make = KINDS[kind]
    count = wanted or usual
    path = template.format(HOSTILE)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: api.call("POST", path, make(number)), range(count)))
    calm = RUNS.format(CALM)
    body = json.loads(run(0, "1"))
    body["metadata"]["name"] = "calm"
    body["spec"]["model"]["fromConfig"].pop("x")
    began = time.monotonic()
    operator = controller.Operator()
    try:
        asyncio.run(operator.ready())
        ready = time.monotonic() - began
        at_ready, cpu = operator.memory(), operator.cpu()
        api.call("POST", calm, json.dumps(body))
        asked = time.monotonic()
        while b'"calm-1' not in api.call("GET", JOBS.format(CALM)):
            if time.monotonic() - asked > 300:
                sys.exit("the calm run has no Job")
            time.sleep(0.2)
        started = time.monotonic() - asked
        time.sleep(30)
        print(
            f"{count} hostile {kind}: ready after {ready:.1f} s ({cpu:.1f} s of its own CPU), memory "
            f"{at_ready:.0f} MiB then and {peak(operator.process.pid):.0f} MiB at most; "
            f"the calm run's Job after {started:.1f} s",
            flush=True,
        )
    finally:
        operator.stop()
        api.call("DELETE", f"{calm}/calm")
        clear(api, path, count)


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    api = Api()
    api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json.dumps(crd()))
    time.sleep(2)
    for name in (HOSTILE, CALM):
        namespace(api, name)
    print(f"{os.cpu_count()} processors, shared with API server and etcd")
    for kind in options.kinds:
        measure(api, kind, options.count)


if __name__ == "__main__":
    main()
