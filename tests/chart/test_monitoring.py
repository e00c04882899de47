"""Who reaches the operator's metrics, and how Prometheus is pointed at them."""

import base64
import re
from pathlib import Path

import pytest
from chart.helm import FULL, HELMS, render, sets
from chart.rights import CLUSTER_RULES, NAMESPACED_RULES, SECURE_RULES, rules
from chart.tls import handshake

from lmft_operator.settings import parse

SECURE = sets("metrics.secure=true", "metrics.serviceMonitor.enabled=true")


@pytest.mark.parametrize("helm", HELMS)
def test_metrics_for_everybody_take_no_right_and_no_certificate(helm: str) -> None:
    rendered = render(*sets("metrics.serviceMonitor.enabled=true"), helm=helm)

    (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint.keys() & {"scheme", "authorization", "bearerTokenFile", "tlsConfig"} == set()
    assert [role for role in rendered.all("ClusterRole") if "metrics" in role["metadata"]["name"]] == []
    assert ("authorization.k8s.io", "subjectaccessreviews") not in rules(
        rendered.one("ClusterRole", "lmft-system-lmfinetune")
    )
    assert parse(rendered.config).metrics.secure is False


@pytest.mark.parametrize("helm", HELMS)
def test_metrics_for_some_take_one_more_right_and_have_a_role_for_their_readers(helm: str) -> None:
    rendered = render(*SECURE, helm=helm)

    assert parse(rendered.config).metrics.secure is True
    assert (
        rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == NAMESPACED_RULES | CLUSTER_RULES | SECURE_RULES
    )
    reader = rendered.one("ClusterRole", "lmft-system-lmfinetune-metrics-reader")
    assert reader["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    bound = {binding["roleRef"]["name"] for binding in rendered.all("ClusterRoleBinding")}
    assert bound == {"lmft-system-lmfinetune"}, "readers are for the cluster's administrator to name"
    assert render(*SECURE, *sets("rbac.create=false", "rbac.aggregate=false"), helm=helm).all("ClusterRole") == []


@pytest.mark.parametrize("progress", ["true", "false"])
@pytest.mark.parametrize("source", ["SelfSigned", "CertManager", "Secret"])
def test_prometheus_trusts_the_certificate_that_the_operator_shows(source: str, progress: str, tmp_path: Path) -> None:
    tls = [f"progress.tls.source={source}", *(["progress.tls.secretName=ours"] if source == "Secret" else [])]
    rendered = render(*SECURE, *sets(*tls, f"progress.enabled={progress}"))

    (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    authority, host = endpoint["tlsConfig"]["ca"]["secret"], endpoint["tlsConfig"]["serverName"]
    mounted = {volume["secret"]["secretName"] for volume in rendered.pod["spec"]["volumes"] if "secret" in volume}
    (mount,) = (
        mount for mount in rendered.pod["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "progress-tls"
    )
    settings = parse(rendered.config).progress
    assert endpoint["scheme"] == "https"
    assert endpoint["bearerTokenFile"] == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert mounted == {authority["name"]}
    assert (authority["key"], host) == ("ca.crt", "lmfinetune-progress.lmft-system.svc")
    assert [settings.cert_file, settings.key_file] == [f"{mount['mountPath']}/tls.{kind}" for kind in ("crt", "key")]
    (test,) = rendered.one("Pod")["spec"]["containers"]
    asked = {variable["name"]: variable["value"] for variable in test["env"]}
    assert asked["METRICS_URL"] == "https://lmfinetune-metrics.lmft-system.svc:8080"
    assert ("PROGRESS_URL" in asked, asked["PROGRESS_CA"]) == (progress == "true", "/etc/progress-ca/ca.crt")
    if source == "SelfSigned":
        for name, content in rendered.one("Secret")["data"].items():
            (tmp_path / name).write_bytes(base64.b64decode(content))
        assert handshake(tmp_path, host) == "ok"
    if source == "CertManager":
        certificates = rendered.all("Certificate")
        assert host in next(c for c in certificates if not c["spec"].get("isCA"))["spec"]["dnsNames"]


def test_prometheus_may_show_the_token_of_a_secret() -> None:
    (endpoint,) = render("--values", str(FULL)).one("ServiceMonitor")["spec"]["endpoints"]

    token = {"name": "prometheus-token", "key": "token"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": token}
    assert "bearerTokenFile" not in endpoint


def test_alerts_ask_for_metrics_that_the_operator_has() -> None:
    from prometheus_client import generate_latest

    from lmft_operator.process import metrics

    metrics.REQUESTS.labels("GET", "pods", "200")
    metrics.register_runs(lambda: [("team-a", "Training", "Stalled")])
    offered = generate_latest().decode()
    (group,) = render("--values", str(FULL)).one("PrometheusRule")["spec"]["groups"]

    asked = {name for rule in group["rules"] for name in re.findall(r"lmft_\w+", rule["expr"])}

    assert asked
    assert [name for name in asked if not re.search(rf"\n{name}[{{ ]", offered)] == []
