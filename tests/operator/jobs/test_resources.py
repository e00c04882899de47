"""What a pod asks for and may use: manifest, defaults and maxima, as a table."""

from typing import Any

import pytest

from lmft_api.spec.pod import Resources
from lmft_operator.jobs.resources import demand, gpu_memory
from lmft_operator.settings import JobSettings, parse

DEFAULT = {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "4Gi"}
MAXIMA = "maxCpu: '8', maxMemory: 64Gi, maxEphemeralStorage: 1Ti, maxSharedMemory: 512Mi"
MOST = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "1Ti"}
WANTED = {"cpu": "4", "memory": "16Gi", "ephemeral_storage": "50Gi", "shared_memory": "2Gi"}
ASKED = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "50Gi"}
WITHOUT_CPU = {name: quantity for name, quantity in ASKED.items() if name != "cpu"}

TABLE = {
    "nothing said": ("{}", {}, DEFAULT, {}, None, "1Gi"),
    "a manifest": ("{}", WANTED, ASKED, WITHOUT_CPU, "50Gi", "2Gi"),
    "maxima": (f"policy: {{{MAXIMA}}}", {}, DEFAULT, MOST, "1Ti", "512Mi"),
    "both": (f"policy: {{{MAXIMA}}}", WANTED, ASKED, ASKED, "50Gi", "2Gi"),
    "a maximum below the default": (
        "policy: {maxMemory: 1536Mi, maxCpu: 500m}",
        {},
        {"cpu": "500m", "memory": "1536Mi", "ephemeral-storage": "4Gi"},
        {"cpu": "500m", "memory": "1536Mi"},
        None,
        "1Gi",
    ),
    "no defaults": ("job: {resources: {cpu: null, memory: null, ephemeralStorage: null}}", {}, {}, {}, None, "1Gi"),
}


@pytest.mark.parametrize(("settings", "wanted", "requests", "limits", "scratch", "shared"), TABLE.values(), ids=TABLE)
def test_requests_have_defaults_and_limits_come_from_the_manifest_or_the_maxima(
    settings, wanted, requests, limits, scratch, shared
):
    parsed = parse(settings)
    asked = demand(Resources(**wanted), 0, parsed.job, parsed.policy.for_namespace("team-a"))
    assert (asked.requests, asked.limits, asked.scratch, asked.shared_memory) == (requests, limits, scratch, shared)


def test_gpus_are_requested_and_limited_alike():
    parsed = parse("{}")
    asked = demand(Resources(gpus_per_node=1), 1, parsed.job, parsed.policy)
    assert asked.requests["nvidia.com/gpu"] == asked.limits["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("wanted", "selector", "memory"),
    [
        ({"gpusPerNode": 1}, {}, "80Gi"),
        ({"gpusPerNode": 1, "gpuResourceName": "amd.com/gpu"}, {}, None),
        ({"gpusPerNode": 1}, {"gpu": "t4"}, "15Gi"),
        ({"gpusPerNode": 1}, {"gpu": "t4", "zone": "a"}, "10Gi"),
        ({"gpusPerNode": 1}, {"gpu": "l4"}, "80Gi"),
        ({}, {"gpu": "t4"}, None),
    ],
)
def test_the_memory_of_a_gpu_is_that_of_its_node_label_else_of_its_resource(
    wanted: dict[str, Any], selector: dict[str, str], memory: str | None
) -> None:
    table = {"nvidia.com/gpu": "80Gi", "gpu=t4": "15Gi", "zone=a": "10Gi"}

    found = gpu_memory(Resources.model_validate(wanted), selector, JobSettings(gpu_memory=table))

    assert found == memory
