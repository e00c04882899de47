"""The chart's life on a real API server of its own: the definition is cluster-wide, and other tests need theirs."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/lmfinetune"
FULL = CHART / "ci/full-values.yaml"
CLUSTER = ROOT / "tests/cluster/local/cluster"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = Path(os.environ.get("LMFT_CLUSTER_BIN") or CACHE / "lmft-cluster")
CRD = "lmfinetunes.lmfinetune.dev"
RUN = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "eli5"},
    "spec": {"model": {"name": "distilbert/distilgpt2"}, "dataset": {"builtin": "PythonDocs"}},
}
numbers = count(1)

Json = dict[str, Any]


@dataclass
class Server:
    """An API server, and the programs that talk to it."""

    kubeconfig: Path
    releases: list[tuple[str, str]] = field(default_factory=list)

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        """Output of kubectl or a Helm; RuntimeError with its complaint."""
        done = subprocess.run(
            [BIN / program, *arguments],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = "default") -> Json | None:
        """An object, or None."""
        text = self.run("kubectl", "get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        found: Json | None = json.loads(text) if text else None
        return found

    def there(self, kind: str, name: str, namespace: str = "default") -> Json:
        """An object that must be there."""
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind} {namespace}/{name} is not there"
        return found

    def apply(self, *objects: Json, namespace: str = "default") -> None:
        """Server-side apply."""
        text = yaml.safe_dump_all(objects)
        self.run("kubectl", "apply", "--server-side", "-n", namespace, "-f", "-", stdin=text)

    def namespace(self, *labels: str) -> str:
        """A fresh namespace."""
        name = f"chart-{next(numbers)}"
        self.run("kubectl", "create", "namespace", name)
        if labels:
            self.run("kubectl", "label", "namespace", name, *labels)
        return name

    def install(self, namespace: str, *arguments: str, helm: str = "helm", chart: Path = CHART) -> None:
        """Install or upgrade the release ``lmft`` in a namespace; it is gone when the test ends."""
        self.releases.append((helm, namespace))
        self.run(helm, "upgrade", "--install", "lmft-lmfinetune", str(chart), "-n", namespace, *arguments)

    def uninstall(self, namespace: str, helm: str = "helm") -> None:
        """Uninstall it."""
        self.run(helm, "uninstall", "lmft-lmfinetune", "-n", namespace)


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("control-plane")
    environment = os.environ | {"LMFT_CONTROL_PLANE_DIR": str(folder), "LMFT_CONTROL_PLANE_PORT": "16543"}
    subprocess.run([CLUSTER, "build", "helm", "helm3"], check=True)
    subprocess.run([CLUSTER, "--control-plane", "up", "--no-controllers"], env=environment, check=True)
    yield folder / "admin.conf"
    subprocess.run([CLUSTER, "--control-plane", "down"], env=environment, check=True)


@pytest.fixture
def server(api_server: Path) -> Iterator[Server]:
    server = Server(api_server)
    yield server
    for helm, namespace in dict.fromkeys(server.releases):
        server.run(helm, "uninstall", "lmft-lmfinetune", "-n", namespace, "--ignore-not-found")
    server.run("kubectl", "delete", "crd", CRD, "--ignore-not-found")


def established(server: Server) -> None:
    server.run("kubectl", "wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")


def changed_chart(folder: Path, change: Callable[[Json], None]) -> Path:
    """A copy of the chart whose definition is changed."""
    chart = folder / "lmfinetune"
    shutil.copytree(CHART, chart)
    file = chart / "files/crd.yaml"
    definition = yaml.safe_load(file.read_text())
    change(definition)
    file.write_text(yaml.safe_dump(definition, sort_keys=False))
    return chart


def add_column(definition: Json) -> None:
    columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    columns.append({"name": "Task", "type": "string", "jsonPath": ".spec.task"})


def columns(server: Server) -> list[str]:
    versions = server.there("crd", CRD)["spec"]["versions"]
    return [column["name"] for column in versions[0]["additionalPrinterColumns"]]


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_an_upgrade_brings_a_changed_definition_and_a_rollback_takes_it_back(
    server: Server, tmp_path: Path, helm: str
) -> None:
    namespace = server.namespace()
    server.install(namespace, helm=helm)
    established(server)
    before = columns(server)
    server.apply(RUN, namespace=namespace)
    uid = server.there("lmft", "eli5", namespace)["metadata"]["uid"]

    server.install(namespace, helm=helm, chart=changed_chart(tmp_path, add_column))
    upgraded = columns(server)
    server.run(helm, "rollback", "lmft-lmfinetune", "1", "-n", namespace)

    assert upgraded == [*before, "Task"]
    assert columns(server) == before
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == uid


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_uninstalling_leaves_the_definition_and_the_runs_and_a_new_install_takes_them_over(
    server: Server, helm: str
) -> None:
    namespace = server.namespace()
    server.install(namespace, helm=helm)
    established(server)
    server.apply(RUN, namespace=namespace)
    run = server.there("lmft", "eli5", namespace)

    server.uninstall(namespace, helm)

    assert server.get("deployment", "lmft-lmfinetune", namespace) is None
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == run["metadata"]["uid"]
    server.install(namespace, helm=helm)
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == run["metadata"]["uid"]


def test_uninstalling_without_keep_removes_the_definition_and_everything_else(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace)
    established(server)
    server.apply(RUN, namespace=namespace)
    server.install(namespace, "--set", "crds.keep=false")

    server.uninstall(namespace)
    server.run("kubectl", "wait", "--for=delete", f"crd/{CRD}", "--timeout=30s")

    left = server.run("kubectl", "get", "clusterrole,clusterrolebinding", "-o", "name")
    assert namespace not in left
    names = server.run(
        "kubectl", "get", "deployment,service,secret,configmap,serviceaccount", "-n", namespace, "-o", "name"
    ).split()
    assert [name for name in names if "lmft" in name] == []


def test_a_definition_that_others_own_is_left_alone(server: Server) -> None:
    namespace = server.namespace()
    server.run("kubectl", "apply", "--server-side", "-f", str(CHART / "files/crd.yaml"))
    uid = server.there("crd", CRD)["metadata"]["uid"]

    server.install(namespace, "--set", "crds.enabled=false")
    server.uninstall(namespace)

    assert server.there("crd", CRD)["metadata"]["uid"] == uid


def test_helm_4_goes_on_with_what_helm_3_installed(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace, helm="helm3")
    established(server)

    server.install(namespace, "--set", "job.gpuResourceName=amd.com/gpu", helm="helm")

    config = server.there("configmap", "lmft-lmfinetune-config", namespace)["data"]["config.yaml"]
    assert "amd.com/gpu" in config


def test_the_certificate_survives_an_upgrade_and_the_pod_is_rolled_for_settings_only(server: Server) -> None:
    namespace = server.namespace()

    def state() -> tuple[str, Json]:
        secret = server.there("secret", "lmft-lmfinetune-progress-tls", namespace)
        pod = server.there("deployment", "lmft-lmfinetune", namespace)["spec"]["template"]
        return secret["data"]["tls.crt"], pod

    server.install(namespace)
    certificate, pod = state()
    server.install(namespace, "--set", "serviceAccount.annotations.example\\.com/a=b")
    assert state() == (certificate, pod)

    server.install(namespace, "--set", "logLevel=DEBUG")
    kept, rolled = state()

    assert kept == certificate
    before, after = pod["metadata"].pop("annotations"), rolled["metadata"].pop("annotations")
    assert pod == rolled
    assert {name for name in before if before[name] != after[name]} == {"checksum/config"}


def test_a_certificate_near_its_end_is_made_anew(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace)
    name = "lmft-lmfinetune-progress-tls"
    old = server.there("secret", name, namespace)
    assert int(old["metadata"]["annotations"]["lmfinetune.dev/certificate-ends"]) > time.time() + 9 * 365 * 86400
    soon = f"lmfinetune.dev/certificate-ends={int(time.time()) + 29 * 86400}"
    server.run("kubectl", "annotate", "secret", name, "-n", namespace, "--overwrite", soon)

    # Forced: Helm 4 does not take back by itself what the line above has set.
    server.install(namespace, "--force-conflicts")

    new = server.there("secret", name, namespace)
    assert new["data"]["tls.crt"] != old["data"]["tls.crt"]
    assert base64.b64decode(new["data"]["tls.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")


def test_the_full_values_install_beside_the_operators_they_need(server: Server) -> None:
    for namespace in ("team-a", "team-b"):
        server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    server.run("kubectl", "apply", "--server-side", *foreign_definitions())
    namespace = server.namespace()

    server.install(namespace, "--values", str(FULL))

    for kind in ("certificate", "issuer", "servicemonitor", "prometheusrule", "networkpolicy", "poddisruptionbudget"):
        assert namespace in server.run("kubectl", "get", kind, "-n", namespace, "-o", "jsonpath={..namespace}"), kind
    assert server.there("role", f"{namespace}-lmft-lmfinetune", "team-a")


def foreign_definitions() -> list[str]:
    """cert-manager's and the Prometheus operator's definitions, from the Go modules that charts/lint pins."""

    def module(name: str) -> Path:
        command = ["go", "mod", "download", "-json", name]
        return Path(json.loads(subprocess.check_output(command, cwd=ROOT / "charts/lint"))["Dir"])

    prometheus = module("github.com/prometheus-operator/prometheus-operator") / "example/prometheus-operator-crd"
    certificates = module("github.com/cert-manager/cert-manager") / "deploy/crds"
    files = [
        certificates / "cert-manager.io_certificates.yaml",
        certificates / "cert-manager.io_issuers.yaml",
        prometheus / "monitoring.coreos.com_servicemonitors.yaml",
        prometheus / "monitoring.coreos.com_prometheusrules.yaml",
    ]
    return [word for file in files for word in ("-f", str(file))]


def test_the_operators_pod_is_admitted_to_a_restricted_namespace(server: Server) -> None:
    namespace = server.namespace("pod-security.kubernetes.io/enforce=restricted")
    server.install(namespace)
    template = server.there("deployment", "lmft-lmfinetune", namespace)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": template["spec"]}

    answer = server.run(
        "kubectl", "create", "-n", namespace, "--dry-run=server", "-o", "name", "-f", "-", stdin=yaml.safe_dump(pod)
    )

    assert answer.strip() == "pod/probe"


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
)
NAMESPACED = {
    "lmfinetunes": {"get", "list", "watch", "delete"},
    "lmfinetunes/status": {"patch"},
    "lmfinetunes/finalizers": {"update"},
    "jobs": {"create", "get", "list", "watch", "delete"},
    "pods": {"get", "list", "watch"},
    "events": {"get", "list", "watch", "create", "patch"},
}
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


def test_serving_some_namespaces_takes_no_rights_elsewhere(server: Server) -> None:
    served, other, namespace = server.namespace(), server.namespace(), server.namespace()
    server.install(namespace, "--set", f"watchNamespaces={{{served}}}")
    account = f"system:serviceaccount:{namespace}:lmft-lmfinetune"

    assert allowed(server, account, served) == NAMESPACED | CLUSTER_WIDE
    for elsewhere in (other, namespace, "kube-system", ""):
        assert allowed(server, account, elsewhere) == CLUSTER_WIDE


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
