"""Runs of several pods under the operator, all at once: Jobs and pods a second, memory, and that none is made twice.

    python bench/nodes.py [--runs 200] [--nodes 4]

Uses KUBECONFIG like ``controller.py``: API server and controllers are enough, the bench plays the kubelet.
"""

import argparse
import asyncio
import json
import time
from typing import Any

from controller import JOBS, RUNS, SPEC, Api, Operator, clear, crowd, fresh_namespace, now, play_kubelet, quiet, say

from lmft_api import API_VERSION, KIND
from lmft_api.generate.crd import crd as custom_resource_definition

PODS = "/api/v1/namespaces/{}/pods"
STAGE = "lmfinetune.dev/stage"


def of_stage(items: list[dict[str, Any]], stage: str) -> list[dict[str, Any]]:
    return [item for item in items if item["metadata"]["labels"][STAGE] == stage]


async def listed(api: Api, path: str, stage: str, count: int, operator: Operator) -> list[dict[str, Any]]:
    """The Jobs or pods of a stage once there are so many."""
    while len(found := of_stage((await api.call("GET", path))["items"], stage)) < count:
        operator.memory()
        await asyncio.sleep(0.2)
    return found


async def end(api: Api, pods: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Play the kubelet for pods that run and end well."""
    state = {"exitCode": 0, "startedAt": now(), "finishedAt": now(), "message": json.dumps(message)}

    async def one(index: int) -> None:
        if index < len(pods):
            await play_kubelet(api, pods[index], "Succeeded", {"terminated": state})

    await crowd(one, len(pods))


async def measure(runs: int, nodes: int) -> None:
    api, namespace = await Api.connect(), f"nodes-{int(time.time())}"
    await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", custom_resource_definition())
    await asyncio.sleep(2)
    await fresh_namespace(api, namespace)
    operator = Operator(f"policy: {{maxNodes: {nodes}}}\n")
    await operator.ready()
    spec = SPEC | {"resources": {"nodes": nodes}}

    async def create(number: int) -> None:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": f"run-{number}"}, "spec": spec}
        await api.call("POST", RUNS.format(namespace), body)

    await crowd(create, runs)
    prepared = await listed(api, PODS.format(namespace), "Prepare", runs, operator)
    started, cpu = time.perf_counter(), operator.cpu()
    await end(api, prepared, {"reason": "Completed", "message": "prepared"})
    jobs = await listed(api, JOBS.format(namespace), "Train", runs, operator)
    jobs_took = time.perf_counter() - started
    pods = await listed(api, PODS.format(namespace), "Train", runs * nodes, operator)
    pods_took = time.perf_counter() - started
    await quiet(operator)
    services = (await api.call("GET", f"/api/v1/namespaces/{namespace}/services"))["items"]
    say(f"{runs} runs of {nodes} pods", jobs_a_second=runs / jobs_took, pods_a_second=runs * nodes / pods_took,
        cpu_ms_a_run=1000 * (operator.cpu() - cpu) / runs, peak_MiB=operator.peak)  # fmt: skip
    result = {"reason": "Completed", "message": "done", "results": {"perplexity": "12.3"}}
    started = time.perf_counter()
    await end(api, pods, result)
    while True:
        found = (await api.call("GET", RUNS.format(namespace)))["items"]
        done = sum(run["status"].get("phase") == "Succeeded" for run in found)
        if done == runs:
            break
        operator.memory()
        await asyncio.sleep(0.2)
    left = (await api.call("GET", f"/api/v1/namespaces/{namespace}/services"))["items"]
    all_jobs = of_stage((await api.call("GET", JOBS.format(namespace)))["items"], "Train")
    say("  to their ends", runs_a_second=runs / (time.perf_counter() - started), peak_MiB=operator.peak)
    say("  made", jobs=len(all_jobs), jobs_twice=len(all_jobs) - len(jobs), services=len(services),
        services_left=len(left))  # fmt: skip
    operator.stop()
    await clear(api, namespace, RUNS)
    await api.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.runs, chosen.nodes))
