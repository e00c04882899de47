"""Whom the network policy lets in and out, and which ports are open to whom."""

from typing import Any

import pytest
from chart.helm import HELMS, render, sets


@pytest.mark.parametrize(
    ("values", "peers"),
    [
        ([], [{"namespaceSelector": {}}]),
        (["--set-json", "networkPolicy.metricsFrom=[]"], []),
        (
            sets("networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=ops"),
            [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}],
        ),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_the_network_policy_lets_in_runs_to_report_and_whom_it_names_to_the_metrics(
    helm: str, values: list[str], peers: list[dict[str, Any]]
) -> None:
    policy = render(*values, helm=helm).one("NetworkPolicy")["spec"]

    assert policy["policyTypes"] == ["Ingress"]
    assert "egress" not in policy
    progress, monitoring = policy["ingress"]
    test = policy["ingress"][0]["from"][-1]
    assert [port["port"] for port in progress["ports"] + monitoring["ports"]] == ["progress", "metrics"]
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert "namespaceSelector" not in test
    assert monitoring["from"] == [*peers, test]
    runs = {"key": "lmfinetune.dev/run-uid", "operator": "Exists"}
    operators = {"podSelector": {"matchLabels": render().one("Deployment")["spec"]["selector"]["matchLabels"]}}
    assert progress["from"] == [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [runs]}}, operators, test]


@pytest.mark.parametrize("cidr", ["10.0.0.1/32", "fd00::1/128", "::/0", "::ffff:10.0.0.1/128"])
def test_the_operator_may_be_held_to_the_addresses_of_the_api_server(cidr: str) -> None:
    values = sets("networkPolicy.egress=true", f"networkPolicy.apiServerCIDRs={{{cidr}}}")

    policy = render(*values).one("NetworkPolicy")["spec"]
    _, _, api_server = policy["egress"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]

    assert api_server == {"ports": [{"port": 443}, {"port": 6443}], "to": [{"ipBlock": {"cidr": cidr}}]}


def test_probes_have_a_port_of_their_own_that_no_service_and_no_policy_opens() -> None:
    rendered = render()

    (container,) = rendered.pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"probes": 8081, "metrics": 8080, "progress": 8443}
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == ["probes"] * 3
    opened = [port["port"] for rule in rendered.one("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    served = [port["targetPort"] for service in rendered.all("Service") for port in service["spec"]["ports"]]
    assert "probes" not in opened + served


def test_services_select_the_operator_and_not_the_test() -> None:
    rendered = render()

    for service in rendered.all("Service"):
        selector = service["spec"]["selector"].items()
        assert selector <= rendered.pod["metadata"]["labels"].items()
        assert not selector <= rendered.one("Pod")["metadata"]["labels"].items()
