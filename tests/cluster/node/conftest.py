"""The node, the release of the chart on it, and what is printed when a test fails."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.node.node import CLUSTER, Node, Run, Team, given_node, local_node
from cluster.node.release import install, make_bucket, s3_client
from cluster.node.training import toy


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    given = os.environ.get("LMFT_E2E_KUBECONFIG")
    try:
        node = given_node(given) if given else local_node()
    except subprocess.CalledProcessError as error:
        # Not one and the same error for each of the tests.
        pytest.exit(f"no node to test on: {error}\n{error.stderr or ''}", returncode=1)
    yield node
    for namespace in node.namespaces:
        node.kubectl("delete", "namespace", namespace, "--wait=false", check=False)
    if node.local and not os.environ.get("LMFT_E2E_KEEP"):
        subprocess.run([CLUSTER, "down"], check=True)


@pytest.fixture(scope="session")
def s3(node: Node) -> Any:
    """The S3 server as a client outside the cluster sees it; it holds the bucket."""
    client = s3_client(node)
    make_bucket(client)
    return client


@pytest.fixture(scope="session")
def release(node: Node, s3: Any) -> Node:
    """The chart, installed with our images and storage; the stub image is allowed beside the job's."""
    install(node)
    return node


@pytest.fixture
def team(release: Node) -> Iterator[Team]:
    team = release.team()
    yield team
    release.kubectl("delete", "namespace", team.namespace, "--wait=false", check=False)


@pytest.fixture(scope="session")
def trainers(release: Node) -> Team:
    """The namespace of the runs that train the same model, so that one can be held against another."""
    return release.team()


@pytest.fixture(scope="session")
def reference(trainers: Team) -> Run:
    """A run that nobody disturbs; others of its spec, disturbed, must end with its figures."""
    return trainers.apply("undisturbed", toy())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call" and report.failed:
        teams = [made for name in ("team", "trainers") if (made := getattr(item, "funcargs", {}).get(name))]
        report.sections += [(f"namespace {team.namespace}", diagnosis(team)) for team in teams]
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
