"""The node, the release of the chart on it, and what is printed when a test fails."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cluster.node.node import CLUSTER, ROOT, Node, Team, given_node, local_node

BUCKET = "models"


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    given = os.environ.get("LMFT_E2E_KUBECONFIG")
    node = given_node(given) if given else local_node()
    yield node
    for namespace in node.namespaces:
        node.kubectl("delete", "namespace", namespace, "--wait=false", check=False)
    if node.local and not os.environ.get("LMFT_E2E_KEEP"):
        subprocess.run([CLUSTER, "down"], check=True)


@pytest.fixture(scope="session")
def s3(node: Node) -> Any:
    """The S3 server as a client outside the cluster sees it; it holds the bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=os.environ.get("LMFT_E2E_S3_OUTSIDE", node.s3_endpoint),
        aws_access_key_id=node.s3_key,
        aws_secret_access_key=node.s3_secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture(scope="session")
def release(node: Node, s3: Any) -> Node:
    """The chart, installed with our images and storage; the stub image is allowed beside the job's."""

    def image(reference: str) -> Any:
        repository, _, tag = reference.rpartition(":")
        return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}

    values = {
        "image": image(node.images["operator"]),
        "job": {
            "image": image(node.images["job"]),
            # The control plane shares the cores: two threads that wait for each other by spinning are slower than one.
            "env": {"OMP_NUM_THREADS": "1"},
            "terminationGracePeriodSeconds": 20,
        },
        "defaults": {
            "output": {
                "uri": f"s3://{BUCKET}",
                "endpointURL": node.s3_endpoint,
                "region": "us-east-1",
                "credentialsSecretName": "lmft-s3",
            }
        },
        "policy": {"images": [node.images["stub"], "localhost/absent:*"]},
        "retries": {"initialSeconds": 1},
    }
    node.run(
        "helm", "upgrade", "--install", "lmfinetune", str(ROOT / "charts/lmfinetune"), "-n", "lmft-system",
        "--create-namespace", "-f", "-", "--wait", "--timeout", "2m", text=json.dumps(values),
    )  # fmt: skip
    return node


@pytest.fixture
def team(release: Node, request: pytest.FixtureRequest) -> Iterator[Team]:
    team = release.team()
    request.node.team = team
    yield team
    release.kubectl("delete", "namespace", team.namespace, "--wait=false", check=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    team = getattr(item, "team", None)
    if report.when == "call" and report.failed and team is not None:
        report.sections.append(("the namespace", diagnosis(team)))
    return report


def diagnosis(team: Team) -> str:
    """What a person would look at first."""
    parts = [
        team.kubectl("get", "lmft,jobs,pods", "-o", "wide", check=False),
        team.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False),
    ]
    pods = team.kubectl("get", "pods", "-o", "name", check=False).split()
    parts += [f"{pod}\n" + team.kubectl("logs", pod, "--tail=40", check=False) for pod in pods]
    parts.append(team.node.kubectl("-n", "lmft-system", "logs", "deploy/lmfinetune", "--tail=40", check=False))
    return "\n".join(parts)
