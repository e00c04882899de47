"""What is applied is what is there: tools that compare, such as Argo CD, find nothing to set again."""

from typing import Any

import pytest
import yaml
from chart.helm import FULL, render
from cluster.chart.server import Json, Server
from cluster.chart.test_chart import foreign_definitions

CERTIFICATE = ["--set", "progress.tls.source=CertManager"]
VALUES = {"default": CERTIFICATE, "full": ["--values", str(FULL)]}


def differences(wanted: Any, there: Any, path: str = "") -> list[str]:
    """Fields that were applied and are not there, or are there as something else."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return [line for key, value in wanted.items() for line in differences(value, there.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(there, list) and len(wanted) == len(there):
        pairs = enumerate(zip(wanted, there, strict=True))
        return [line for index, (one, other) in pairs for line in differences(one, other, f"{path}[{index}]")]
    return [] if wanted == there else [f"{path}: applied {wanted!r}, there is {there!r}"]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_object_reads_back_as_it_was_applied(server: Server, values: list[str]) -> None:
    # given the chart as a tool without a cluster renders it
    namespace = server.namespace()
    for name in ("team-a", "team-b"):
        server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    server.run("kubectl", "apply", "--server-side", *foreign_definitions())
    # Hooks are run and not kept.
    objects = [
        item
        for item in render(*values, namespace=namespace).objects
        if "helm.sh/hook" not in item["metadata"].get("annotations", {})
    ]

    # when it is applied
    server.run("kubectl", "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))

    # then nothing of it is missing or other than it was
    found = {f"{item['kind']} {item['metadata']['name']}": differences(item, back(server, item)) for item in objects}
    for item in objects:
        if item["kind"] != "CustomResourceDefinition":
            server.run("kubectl", "delete", "-f", "-", "--wait=false", stdin=yaml.safe_dump(item))
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert len(found) > 10


def back(server: Server, item: Json) -> Json:
    kind = f"{item['kind']}.{item['apiVersion'].partition('/')[0]}" if "/" in item["apiVersion"] else item["kind"]
    return server.there(kind, item["metadata"]["name"], item["metadata"].get("namespace", "default"))
