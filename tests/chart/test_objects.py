"""What the chart puts into a cluster: the pod, the definition, and what is off unless wanted."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.helm import CHART, FULL, HELMS, Rendered, render, run, sets

from lmft_operator.settings import parse


def test_one_operator_is_recreated_and_several_are_rolled_on_nodes_of_their_own_with_a_budget() -> None:
    one, two = render(), render(*sets("replicas=2"))

    alone, both = one.one("Deployment")["spec"], two.one("Deployment")["spec"]
    assert (alone["replicas"], alone["strategy"]) == (1, {"type": "Recreate"})
    assert one.all("PodDisruptionBudget") == []
    rolling = {"maxUnavailable": 1, "maxSurge": 1}
    assert (both["replicas"], both["strategy"]) == (2, {"type": "RollingUpdate", "rollingUpdate": rolling})
    assert two.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (apart,) = two.pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= two.pod["metadata"]["labels"].items()
    own = render(*sets("replicas=2", "affinity.nodeAffinity.a=b"))
    assert own.pod["spec"]["affinity"] == {"nodeAffinity": {"a": "b"}}


def test_the_operators_share_the_lease_that_their_role_names_and_say_where_they_are() -> None:
    rendered = render()

    lease = parse(rendered.config).leader
    role = next(role for role in rendered.all("Role") if role["metadata"]["namespace"] == "lmft-system")
    assert (lease.namespace, [lease.name]) == ("lmft-system", role["rules"][1]["resourceNames"])
    env = {entry["name"]: entry.get("valueFrom") for entry in rendered.pod["spec"]["containers"][0]["env"]}
    assert env["LMFT_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["LMFT_POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_change_of_the_settings_rolls_the_pod_and_nothing_else_does() -> None:
    before, same, after = render(), render(), render(*sets("job.gpuResourceName=amd.com/gpu"))

    def checksum(rendered: Rendered) -> str:
        text: str = rendered.pod["metadata"]["annotations"]["checksum/config"]
        return text

    assert checksum(before) == checksum(same) != checksum(after)


def test_the_definition_is_the_generated_one_with_metadata() -> None:
    generated = yaml.safe_load((CHART / "files/crd.yaml").read_text())

    rendered = render().one("CustomResourceDefinition")

    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"]["labels"]["app.kubernetes.io/name"] == "lmfinetune"


def test_the_definition_can_be_left_to_others_or_go_with_the_release() -> None:
    assert render(*sets("crds.enabled=false")).all("CustomResourceDefinition") == []
    assert "annotations" not in render(*sets("crds.keep=false")).one("CustomResourceDefinition")["metadata"]


def test_what_needs_other_operators_or_blocks_drains_is_off_unless_wanted() -> None:
    optional = {
        "ValidatingAdmissionPolicy",
        "ServiceMonitor",
        "PrometheusRule",
        "PodDisruptionBudget",
        "Certificate",
        "Issuer",
    }

    assert optional.isdisjoint({item["kind"] for item in render().objects})
    assert optional <= {item["kind"] for item in render("--values", str(FULL)).objects}


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_both_helms_render_the_same_but_for_certificates(arguments: list[str]) -> None:
    four, three = (render(*arguments, *sets("progress.tls.source=CertManager"), helm=helm) for helm in HELMS)

    def sort_key(item: dict[str, Any]) -> tuple[str, str, str]:
        return item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", "")

    assert sorted(four.objects, key=sort_key) == sorted(three.objects, key=sort_key)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("wanted", "kinds"), [("true", 1), ("false", 0)])
def test_the_chart_is_a_dependency_with_a_condition(helm: str, wanted: str, kinds: int, tmp_path: Path) -> None:
    dependency = {"name": "lmfinetune", "version": "0.1.0", "condition": "lmfinetune.enabled"}
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (tmp_path / "values.yaml").write_text("global: {imageRegistry: x}\nlmfinetune: {enabled: false}\n")
    shutil.copytree(CHART, tmp_path / "charts/lmfinetune")

    text = run(helm, "template", "p", str(tmp_path), "--kube-version", "1.30.0", *sets(f"lmfinetune.enabled={wanted}"))

    assert len(re.findall("^kind: Deployment$", text, re.MULTILINE)) == kinds
