"""Who reaches the operator's metrics, and how Prometheus is pointed at them."""

import base64
import json
import re
from pathlib import Path

import pytest
from chart.helm import FULL, HELMS, ROOT, render, sets
from chart.rights import CLUSTER_RULES, NAMESPACED_RULES, SECURE_RULES, rules
from chart.tls import handshake

from lmft_api.reasons import Phase, Reason
from lmft_operator.process import metrics
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


def offered() -> dict[str, set[str]]:
    """The labels of every sample that the operator can offer, by its name."""
    names = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
    [runs] = metrics.RunsCollector(lambda: [("team-a", "Training", "Stalled")]).collect()
    found = {sample.name: set(sample.labels) for sample in runs.samples}
    for metric in vars(metrics).values():
        for ending in names.get(type(metric).__name__, ()):
            name = next(iter(metric.describe())).name.removesuffix("_total")
            found[name + ending] = {*metric._labelnames, *(("le",) if ending == "_bucket" else ())}
    return found


def require_offered(expressions: list[str]) -> None:
    """Metrics and labels are those of the operator; a target has ``job``, and ``namespace`` if a metric has none."""
    known = offered()
    for expression in expressions:
        asked = re.findall(r"(lmft_\w+)(?:\{(.*?)\})?", expression)
        for name, selector in asked:
            assert name in known, expression
            assert set(re.findall(r"(\w+)=", selector)) <= known[name] | {"job", "namespace"}, expression
        grouped = {label.strip() for group in re.findall(r"by \((.*?)\)", expression) for label in group.split(",")}
        assert grouped <= set.union(*(known[name] for name, _ in asked)) if asked else True, expression
        for label, values in re.findall(r'(phase|reason)=~?"([^"$]+)"', expression):
            assert set(values.split("|")) <= set({"phase": Phase, "reason": Reason}[label]), expression


def test_alerts_ask_for_metrics_that_the_operator_has_and_link_to_what_to_do() -> None:
    (group,) = render("--values", str(FULL)).one("PrometheusRule")["spec"]["groups"]
    rules = [rule for rule in group["rules"] if rule["alert"] != "Example"]

    require_offered([rule["expr"] for rule in rules])
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    for rule in rules:
        address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (address, anchor in headings) == ("https://wiki.example.com/lmfinetune", True)
    (plain,) = render(*sets("metrics.prometheusRule.enabled=true", "metrics.prometheusRule.runbookURL=")).one(
        "PrometheusRule"
    )["spec"]["groups"]
    assert not any("runbook_url" in rule["annotations"] for rule in plain["rules"])


@pytest.mark.parametrize("helm", HELMS)
def test_the_dashboard_is_there_on_request_and_asks_for_metrics_that_the_operator_has(helm: str) -> None:
    assert [item["metadata"]["name"] for item in render(helm=helm).all("ConfigMap")] == ["lmfinetune-config"]
    found = render("--values", str(FULL), helm=helm).one("ConfigMap", "lmfinetune-dashboard")

    assert found["metadata"]["labels"]["grafana"] == "training"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Training"}
    dashboard = json.loads(found["data"]["lmfinetune.json"])
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    require_offered([target["expr"] for panel in panels for target in panel["targets"]])
    assert all(panel["title"] and panel["description"] for panel in panels)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    asked = set(re.findall(r"\$\{?([a-z]+)", json.dumps(dashboard["panels"])))
    assert asked == set(variables)
    for variable in ("namespace", "job"):
        metric, label = re.findall(r"\((\w+), (\w+)\)", variables[variable]["definition"])[0]
        assert metric in offered()
        assert label in offered()[metric] | {"job"}
    # no panel lies on another, and all are as wide as the page at most
    cells = [
        (column, line)
        for panel in dashboard["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24
