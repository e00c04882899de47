"""What the operator may do in a cluster, and what its pods may do on a node."""

import re

import pytest
import yaml
from chart.helm import FULL, render, sets
from chart.rights import CLUSTER_RULES, LEASE_RULES, NAMESPACED_RULES, rules

from lmft_operator.settings import parse


def test_the_operators_rights_over_the_whole_cluster_are_exactly_these() -> None:
    rendered = render()

    assert rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == NAMESPACED_RULES | CLUSTER_RULES
    (lease,) = rendered.all("Role")
    assert (lease["metadata"]["namespace"], rules(lease)) == ("lmft-system", LEASE_RULES)
    assert {tuple(rule.get("resourceNames", [])) for rule in lease["rules"] if "create" not in rule["verbs"]} == {
        ("lmfinetune",)
    }


def test_with_a_list_of_namespaces_its_rights_are_roles_there() -> None:
    rendered = render(*sets("watchNamespaces={team-a,team-b}"))

    assert rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == CLUSTER_RULES
    granted = {role["metadata"]["namespace"]: rules(role) for role in rendered.all("Role")}
    assert granted == {"lmft-system": LEASE_RULES, "team-a": NAMESPACED_RULES, "team-b": NAMESPACED_RULES}
    account = {"kind": "ServiceAccount", "name": "lmfinetune", "namespace": "lmft-system"}
    assert all(binding["subjects"] == [account] for binding in rendered.all("RoleBinding"))


@pytest.mark.parametrize(
    ("values", "granted"),
    [
        (("policy.maxNodes=2",), True),
        (("policy.perNamespace.team-a.maxNodes=2",), True),
        (("policy.maxNodes=1",), False),
        (("policy.maxNodes=2", "rbac.listNodes=false"), False),
        (("policy.maxNodes=2", "watchNamespaces={team-a}"), False),
    ],
)
def test_nodes_are_listed_only_where_runs_may_take_several_in_any_namespace(
    values: tuple[str, ...], granted: bool
) -> None:
    rendered = render(*sets(*values))

    assert rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")).get(("", "nodes")) == (
        {"list"} if granted else None
    )


@pytest.mark.parametrize(
    ("values", "granted"),
    [
        (("policy.maxNodes=2",), True),
        (("policy.perNamespace.team-a.maxNodes=2",), True),
        (("policy.maxNodes=1",), False),
        (("policy.maxNodes=2", "networkPolicy.peers=false"), False),
        (("policy.maxNodes=2", "networkPolicy.enabled=false"), False),
    ],
)
def test_network_policies_are_made_only_where_runs_may_take_several_nodes(
    values: tuple[str, ...], granted: bool
) -> None:
    everywhere = render(*sets(*values))
    somewhere = render(*sets(*values, "watchNamespaces={team-a}"))

    (role,) = [role for role in somewhere.all("Role") if role["metadata"]["namespace"] == "team-a"]
    for found in (everywhere.one("ClusterRole", "lmft-system-lmfinetune"), role):
        verbs = rules(found).get(("networking.k8s.io", "networkpolicies"))
        assert verbs == ({"create", "get", "delete"} if granted else None)
    assert parse(everywhere.config).job.isolate_peers is (granted or "policy.maxNodes=1" in values)


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_no_role_has_a_wildcard_or_sees_secrets_logs_or_shells(arguments: list[str]) -> None:
    rendered = render(*arguments)

    text = yaml.safe_dump([role["rules"] for kind in ("Role", "ClusterRole") for role in rendered.all(kind)])

    assert "*" not in text
    assert not re.search(r"secrets|configmaps|pods/|serviceaccounts|impersonate|escalate|bind", text)


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_every_pod_satisfies_the_restricted_standard(arguments: list[str]) -> None:
    rendered = render(*arguments)

    for pod in (rendered.pod["spec"], rendered.one("Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
        assert all(set(volume) <= {"name", "configMap", "secret", "emptyDir"} for volume in pod["volumes"])
