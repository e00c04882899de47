"""The chart's life on a real API server: installed, upgraded, rolled back, taken over, uninstalled."""

import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cluster.chart.process import METRICS_PORT, PROGRESS_PORT, jobs, operator
from cluster.chart.server import CHART, CRD, FULL, ROOT, RUN, Json, Server
from cluster.eventually import eventually


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
    server.established()
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
    server.established()
    server.apply(RUN, namespace=namespace)
    run = server.there("lmft", "eli5", namespace)

    server.uninstall(namespace, helm)

    assert server.get("deployment", "lmft-lmfinetune", namespace) is None
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == run["metadata"]["uid"]
    server.install(namespace, helm=helm)
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == run["metadata"]["uid"]


def test_another_release_takes_over_what_an_uninstalled_one_has_left(server: Server) -> None:
    # given a definition that a release has left behind, with runs
    namespace, other = server.namespace(), server.namespace()
    server.install(namespace)
    server.established()
    server.apply(RUN, namespace=namespace)
    uid = server.there("lmft", "eli5", namespace)["metadata"]["uid"]
    server.uninstall(namespace)
    with pytest.raises(RuntimeError, match=r"meta\.helm\.sh/release-namespace"):
        server.install(other)

    # when it is handed over as docs/install.md says
    server.run("kubectl", "label", "crd", CRD, "app.kubernetes.io/managed-by=Helm", "--overwrite")
    marks = ["meta.helm.sh/release-name=lmft-lmfinetune", f"meta.helm.sh/release-namespace={other}"]
    server.run("kubectl", "annotate", "crd", CRD, "--overwrite", *marks)
    server.install(other)

    # then the runs are as they were
    assert server.there("lmft", "eli5", namespace)["metadata"]["uid"] == uid


def test_uninstalling_without_keep_removes_the_definition_and_everything_else(server: Server) -> None:
    namespace = server.namespace()
    server.install(namespace)
    server.established()
    server.apply(RUN, namespace=namespace)
    server.install(namespace, "--set", "crds.keep=false")

    server.uninstall(namespace)
    server.until_definition_is_gone()

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
    server.established()

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


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_a_run_in_flight_keeps_its_job_through_an_upgrade(server: Server, tmp_path: Path, helm: str) -> None:
    namespace = server.namespace()
    server.install(namespace, "--set", "defaults.output.uri=s3://models", helm=helm)
    server.established()
    server.apply(RUN, namespace=namespace)
    with operator(server, namespace, tmp_path):
        eventually(lambda: jobs(server, namespace), "a Job of the run")
        eventually(lambda: server.there("lmft", "eli5", namespace).get("status"), "a status")
    (before,) = jobs(server, namespace)
    uid = server.there("job", before.split("/")[1], namespace)["metadata"]["uid"]

    chart = changed_chart(tmp_path, add_column)
    # What a new run would get differs; the old one has its Job.
    changes = ["--set", "job.image.tag=v2,job.gpuResourceName=amd.com/gpu,defaults.output.uri=s3://others"]
    server.install(namespace, *changes, helm=helm, chart=chart)
    with operator(server, namespace, tmp_path):
        server.apply(RUN | {"metadata": {"name": "later"}}, namespace=namespace)
        eventually(lambda: len(jobs(server, namespace)) == 2, "a Job of the later run")

    assert server.there("job", before.split("/")[1], namespace)["metadata"]["uid"] == uid
    images = server.run("kubectl", "get", "jobs", "-n", namespace, "-o", "jsonpath={..image}").split()
    assert [image.split(":")[1] for image in images] == ["0.1.0", "v2"]


def test_helm_test_passes_a_working_operator_and_none_with_another_certificate(server: Server, tmp_path: Path) -> None:
    namespace = server.namespace()
    server.install(namespace)
    server.established()
    # What the chart's test pod would run, with every name leading to the operator here.
    here = (
        "import socket; look_up = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *rest, **named: look_up('127.0.0.1', *rest, **named)"
    )
    program = f"{here}\n{(CHART / 'files/helm_test.py').read_text()}"
    host = f"lmft-lmfinetune-progress.{namespace}.svc"
    environment = {"METRICS_URL": f"http://any:{METRICS_PORT}", "PROGRESS_CA": str(tmp_path / "ca.crt")}

    def helm_test(name: str) -> subprocess.CompletedProcess[str]:
        urls = environment | {"PROGRESS_URL": f"https://{name}:{PROGRESS_PORT}"}
        return subprocess.run([sys.executable, "-c", program], env=urls, capture_output=True, text=True, check=False)

    with operator(server, namespace, tmp_path):
        good, bad = helm_test(host), helm_test("somewhere.else.svc")

    assert good.returncode == 0, good.stderr
    assert "strangers are refused" in good.stdout
    assert bad.returncode != 0
    assert "certificate verify failed" in bad.stderr
