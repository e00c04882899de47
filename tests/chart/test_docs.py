"""What the pages say about the chart: values that are shown are taken, rights and alerts that are listed are all."""

import re
from pathlib import Path

import pytest
from chart.helm import CHART, FULL, HELMS, render
from chart.rights import CLUSTER_RULES, LEASE_RULES, NAMESPACED_RULES, NODE_RULES, SECURE_RULES
from docs.pages import ROOT, Block, blocks, prose

from lmft_operator.settings import parse


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("block", blocks("yaml values"), ids=lambda block: block.where)
def test_values_that_a_page_shows_are_taken_by_chart_and_operator(block: Block, helm: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block.text)

    settings = parse(render("--values", str(file), helm=helm).config)

    assert settings.defaults.output_uri == "s3://models"


@pytest.mark.parametrize("page", [ROOT / "docs/security.md", CHART / "README.md"], ids=lambda page: page.name)
def test_the_rights_that_a_page_lists_are_those_of_the_roles(page: Path) -> None:
    rows = re.findall(r"^\| ([a-z/]+) \| ([a-z, ]+) \| [^|]+ \|$", prose(page), re.MULTILINE)

    rights = NAMESPACED_RULES | LEASE_RULES | CLUSTER_RULES | NODE_RULES | SECURE_RULES
    known = set().union(*rights.values())
    listed = {resource: set(verbs.split(", ")) for resource, verbs in rows if known & set(verbs.split(", "))}

    assert listed == {resource: verbs for (_, resource), verbs in rights.items()}


def test_the_alerts_that_operations_lists_are_those_of_the_rule() -> None:
    listed = re.findall(r"^#### (LMFineTune\w+)$", prose(ROOT / "docs/operations.md"), re.MULTILINE)

    (group,) = render("--values", str(FULL)).one("PrometheusRule")["spec"]["groups"]

    assert set(listed) <= {rule["alert"] for rule in group["rules"]}
    assert len(listed) == len(re.findall("alert: LMFineTune", (CHART / "templates/monitoring.yaml").read_text()))
