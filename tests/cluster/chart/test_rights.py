"""What the operator may do, asked of a real API server, and that it suffices for its work."""

import http.client
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
import yaml
from cluster.chart.process import PROGRESS_PORT, events, jobs, operator
from cluster.chart.server import RUN, Server
from cluster.eventually import eventually

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = (
    ("lmfinetune.dev", "lmfinetunes", ""),
    ("lmfinetune.dev", "lmfinetunes", "status"),
    ("lmfinetune.dev", "lmfinetunes", "finalizers"),
    ("batch", "jobs", ""),
    ("batch", "jobs", "status"),
    ("", "pods", ""),
    ("", "pods", "log"),
    ("", "pods", "exec"),
    ("", "pods", "status"),
    ("", "events", ""),
    ("", "services", ""),
    ("networking.k8s.io", "networkpolicies", ""),
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "namespaces", ""),
    ("", "nodes", ""),
    ("", "serviceaccounts", ""),
    ("", "serviceaccounts", "token"),
    ("", "persistentvolumeclaims", ""),
    ("apps", "deployments", ""),
    ("rbac.authorization.k8s.io", "roles", ""),
    ("apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("authentication.k8s.io", "tokenreviews", ""),
    ("authorization.k8s.io", "subjectaccessreviews", ""),
    ("coordination.k8s.io", "leases", ""),
)
NAMESPACED = {
    "lmfinetunes": {"get", "list", "watch", "delete"},
    "lmfinetunes/status": {"patch"},
    "lmfinetunes/finalizers": {"update"},
    "jobs": {"create", "get", "list", "watch", "delete"},
    "pods": {"list", "watch"},
    "events": {"list", "watch", "create"},
    "services": {"create", "get", "delete"},
}
LEASE = {"leases": {"create", "get", "update"}}
CLUSTER_WIDE = {"customresourcedefinitions": {"list", "watch"}, "tokenreviews": {"create"}}


def allowed(server: Server, account: str, namespace: str) -> dict[str, set[str]]:
    """What an account may do in a namespace ("" for all of them), by the API server's own review of each pair."""
    asked = [(group, resource, sub, verb) for group, resource, sub in RESOURCES for verb in VERBS]
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": account,
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {
                    "group": group,
                    "resource": resource,
                    "subresource": sub,
                    "verb": verb,
                    "namespace": namespace,
                    "name": "lmft-lmfinetune" if resource == "leases" else "",
                },
            },
        }
        for group, resource, sub, verb in asked
    ]
    template = '{.status.allowed}{"\\n"}'
    answers = server.run(
        "kubectl", "create", "-f", "-", "-o", f"jsonpath={template}", stdin=yaml.safe_dump_all(reviews)
    ).split()
    assert len(answers) == len(asked)
    found: dict[str, set[str]] = {}
    for (_, resource, sub, verb), answer in zip(asked, answers, strict=True):
        if answer == "true":
            found.setdefault(f"{resource}/{sub}" if sub else resource, set()).add(verb)
    return found


def test_serving_the_whole_cluster_takes_these_rights_and_no_others(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace)
    account = f"system:serviceaccount:{namespace}:lmft-lmfinetune"

    assert allowed(server, account, "") == NAMESPACED | CLUSTER_WIDE
    assert allowed(server, account, "default") == NAMESPACED | CLUSTER_WIDE
    assert allowed(server, account, namespace) == NAMESPACED | CLUSTER_WIDE | LEASE


def test_metrics_for_some_take_one_more_right_and_make_a_role_for_their_readers(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace, "--set", "metrics.secure=true")
    account = f"system:serviceaccount:{namespace}:lmft-lmfinetune"

    assert allowed(server, account, "") == NAMESPACED | CLUSTER_WIDE | {"subjectaccessreviews": {"create"}}
    role = server.there("clusterrole", f"{namespace}-lmft-lmfinetune-metrics-reader")
    assert role["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


def test_serving_some_namespaces_takes_no_rights_elsewhere(server: Server) -> None:
    served, other, namespace = server.namespace(), server.namespace(), server.namespace()
    server.install(namespace, "--set", f"watchNamespaces={{{served}}}")
    account = f"system:serviceaccount:{namespace}:lmft-lmfinetune"

    assert allowed(server, account, served) == NAMESPACED | CLUSTER_WIDE
    assert allowed(server, account, namespace) == CLUSTER_WIDE | LEASE
    for elsewhere in (other, "kube-system", ""):
        assert allowed(server, account, elsewhere) == CLUSTER_WIDE


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_a_namespace_that_is_away_stops_no_install_and_gets_its_role_when_it_is_there(
    server: Server, helm: str
) -> None:
    served, namespace, later = server.namespace(), server.namespace(), f"later-{helm}"
    both = ("--set", f"watchNamespaces={{{served},{later}}}")
    role = f"{namespace}-lmft-lmfinetune"

    server.install(namespace, *both, helm=helm)
    assert server.there("role", role, served)

    server.run("kubectl", "create", "namespace", later)
    server.install(namespace, *both, helm=helm)
    assert server.there("rolebinding", role, later)

    # No controller ends a namespace here: it stays on its way out, and takes no new objects.
    server.run("kubectl", "delete", "namespace", later, "--wait=false")
    server.run("kubectl", "delete", "role", role, "-n", later)
    server.install(namespace, *both, helm=helm)
    assert server.get("role", role, later) is None
    assert server.there("role", role, served)


def test_people_with_the_clusters_own_edit_role_may_use_runs(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace)
    view, edit = (
        {
            tuple(rule["verbs"])
            for rule in server.there("clusterrole", f"{namespace}-lmft-lmfinetune-{role}")["rules"]
            if rule["resources"] == ["lmfinetunes"]
        }
        for role in ("view", "edit")
    )

    assert view == {("get", "list", "watch")}
    assert edit == {("create", "update", "patch", "delete", "deletecollection")}


@pytest.mark.parametrize("mode", ["the whole cluster", "one namespace"])
def test_the_operator_does_its_work_with_these_rights(server: Server, tmp_path: Path, mode: str) -> None:
    served, namespace = server.namespace(), server.namespace()
    watched = [] if mode == "the whole cluster" else ["--set", f"watchNamespaces={{{served}}}"]
    server.install(namespace, "--set", "defaults.output.uri=s3://models", *watched)
    server.established()

    template = {"image": "docker.io/someone/else:1"}
    refused = RUN | {"metadata": {"name": "refused"}, "spec": RUN["spec"] | {"podTemplate": template}}

    with operator(server, namespace, tmp_path) as address:
        server.apply(RUN, namespace=served)
        eventually(lambda: jobs(server, served), "a Job of the run")
        eventually(lambda: server.there("lmft", "eli5", served).get("status"), "a status")
        server.apply(refused, namespace=served)
        eventually(lambda: events(server, served), "an Event about the refusal")
        host = f"lmft-lmfinetune-progress.{namespace}.svc"
        assert refusal(host, tmp_path / "ca.crt", token="not.a.token") == 401
        server.run("kubectl", "delete", "lmft", "eli5", "-n", served)
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            metrics = answer.read().decode()

    assert [line for line in metrics.splitlines() if 'code="403"' in line] == []
    assert "forbidden" not in (tmp_path / "log").read_text().lower()


def refusal(host: str, authority: Path, token: str) -> int:
    """Status of a progress report under a token, sent over TLS as a pod would, to the operator here."""
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(host)
    connection.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", PROGRESS_PORT)), server_hostname=host)
    connection.request("POST", "/", b"{}", {"Authorization": f"Bearer {token}"})
    return connection.getresponse().status
