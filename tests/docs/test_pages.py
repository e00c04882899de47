"""Every block is accounted for, every link leads somewhere, and every name that a page drops exists."""

import re
from ipaddress import ip_address, ip_network
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.pages import CHART_README, KINDS, PAGES, ROOT, Block, anchors, blocks, blocks_of, links, prose

from lmft_api.generate.crd import crd
from lmft_api.manifest.reader import read_yaml
from lmft_api.manifest.validation import document_problems
from lmft_api.schema.structural import structural_schema
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import LMFineTuneStatus

VALUES = ROOT / "charts/lmfinetune/values.yaml"
CODE = re.compile(r"`([^`\n]+)`")


def names(pages: tuple[Path, ...], pattern: str) -> list[tuple[str, str]]:
    """Page and match of what stands in backticks and looks like the pattern."""
    found = []
    for page in pages:
        for code in CODE.findall(prose(page)):
            found += [(page.name, match) for match in re.findall(pattern, code)]
    return found


def test_every_page_of_the_documentation_is_read_by_these_tests() -> None:
    assert set((ROOT / "docs").glob("**/*.md")) | set(ROOT.glob("*.md")) | {CHART_README} == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is_and_why_it_is_not_run(page: Path) -> None:
    unknown = [block.where for block in blocks_of(page) if block.kind not in KINDS]
    unexplained = [block.where for block in blocks_of(page) if block.kind.endswith("unrun") and len(block.reason) < 10]
    idle = [block.where for block in blocks_of(page) if block.reason and not block.kind.endswith("unrun")]

    assert (unknown, unexplained, idle) == ([], [], [])


def test_commands_hide_in_no_other_block() -> None:
    command = re.compile(r"^\s*(?:\$ |sudo |kubectl |helm |lmft |make |docker |pip |\.venv/)", re.MULTILINE)

    assert [block.where for block in blocks("text") if command.search(block.text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("block", blocks("yaml manifest"), ids=lambda block: block.where)
def test_a_manifest_that_is_shown_is_valid(block: Block) -> None:
    assert document_problems(read_yaml(block.text)) == []


@pytest.mark.parametrize("block", blocks("yaml mistaken"), ids=lambda block: block.where)
def test_a_manifest_that_is_shown_for_its_mistakes_has_some(block: Block) -> None:
    assert document_problems(read_yaml(block.text)) != []


@pytest.mark.parametrize("block", blocks("yaml object"), ids=lambda block: block.where)
def test_an_object_that_is_shown_is_one_of_kubernetes_own(block: Block) -> None:
    shown = yaml.safe_load(block.text)
    assert {"apiVersion", "kind", "metadata", "spec"} == set(shown)


@pytest.mark.parametrize(
    ("address", "port", "plain", "on_gke"),
    [
        ("169.254.169.254", 80, False, True),  # the node's metadata service, on GKE its own
        ("169.254.169.252", 988, True, True),
        ("169.254.170.23", 80, True, True),  # EKS Pod Identity
        ("fd00:ec2::254", 80, False, False),
        ("fd00:ec2::23", 80, True, True),
        ("203.0.113.7", 443, True, True),
    ],
)
def test_the_network_policy_that_is_shown_shuts_the_nodes_metadata_service_and_no_more(
    address: str, port: int, plain: bool, on_gke: bool
) -> None:
    [block] = [block for block in blocks("yaml object") if "lmft-runs" in block.text]
    gke = re.sub(r"^  # (- to|  ports)", r"  \1", block.text, flags=re.MULTILINE)

    def reached(text: str) -> bool:
        peers = [
            (peer["ipBlock"], rule.get("ports"))
            for rule in yaml.safe_load(text)["spec"]["egress"]
            for peer in rule["to"]
        ]
        return any(
            ip_address(address) in ip_network(peer["cidr"])
            and not any(ip_address(address) in ip_network(other) for other in peer.get("except", ()))
            and (ports is None or port in [entry["port"] for entry in ports])
            for peer, ports in peers
        )

    assert (reached(block.text), reached(gke)) == (plain, on_gke)


def has_path(schema: dict[str, Any], path: list[str]) -> bool:
    if not path:
        return True
    schema = schema.get("items", schema)
    if "properties" not in schema:
        return True  # a map, or a configuration of somebody else's: any key
    return path[0] in schema["properties"] and has_path(schema["properties"][path[0]], path[1:])


def test_fields_that_pages_name_exist() -> None:
    schemas = {"spec": structural_schema(LMFineTuneSpec), "status": structural_schema(LMFineTuneStatus)}
    named = names(PAGES, r"^((?:spec|status)(?:\.[A-Za-z]+)+)")

    wrong = [(page, name) for page, name in named if not has_path(schemas[name.split(".")[0]], name.split(".")[1:])]

    assert len(named) > 20
    assert wrong == []


def test_values_that_pages_name_exist() -> None:
    values = yaml.safe_load(VALUES.read_text())
    sections = "|".join(key for key, value in values.items() if isinstance(value, dict))
    named = names(PAGES[:-1], rf"^(?!metrics\.jsonl)((?:{sections})(?:\.[A-Za-z]+)+)")

    def exists(node: Any, path: list[str]) -> bool:
        return not path or (
            isinstance(node, dict) and (not node or (path[0] in node and exists(node[path[0]], path[1:])))
        )

    assert len(named) > 10
    assert [(page, name) for page, name in named if not exists(values, name.split("."))] == []


def test_metrics_that_operations_lists_are_those_of_the_operator() -> None:
    from prometheus_client.metrics import MetricWrapperBase

    from lmft_operator.process import metrics

    ours = {
        (next(iter(metric.describe())).name + ("_total" if metric._type == "counter" else ""), metric._labelnames)
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    family = next(iter(metrics.RunsCollector(lambda: [("team-a", "Training", "Training")]).collect()))
    ours.add((family.name, tuple(family.samples[0].labels)))
    rows = re.findall(r"^\| `(lmft_\w+)(?:\{([\w,]+)\})?` \|", prose(ROOT / "docs/operations.md"), re.MULTILINE)

    assert {(name, tuple(filter(None, labels.split(",")))) for name, labels in rows} == ours


def test_the_rules_that_security_lists_are_those_of_the_policy_with_its_defaults() -> None:
    policy = yaml.safe_load(VALUES.read_text())["policy"]
    sources = policy.pop("sources")
    policy |= {f"sources.{key}": value for key, value in sources.items()}
    del policy["perNamespace"]
    table = re.findall(r"^\| `policy\.([\w.]+)` \| (.+?) \|", prose(ROOT / "docs/security.md"), re.MULTILINE)

    def shown(name: str, value: Any) -> str:
        if name == "envNames":
            return f"{len(value)} names"
        if isinstance(value, list):
            return ", ".join(f"`{entry}`" for entry in value) or "none"
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return {None: "no limit", False: "no", True: "yes"}[value]

    assert dict(table) == {name: shown(name, value) for name, value in policy.items()}


def test_numbers_of_retries_are_those_of_the_operator() -> None:
    from lmft_operator.decide.next import FREE_INTERRUPTIONS
    from lmft_operator.settings import OperatorSettings

    retries = OperatorSettings().retries
    page = " ".join(prose(ROOT / "docs/operations.md").split())

    assert f"after {retries.initial_seconds:.0f} s, doubling to {retries.max_seconds / 60:.0f} min" in page
    assert f"`spec.maxRetries` ({retries.default_max_retries})" in page
    words = {3: "three", 10: "ten"}
    assert f"the first {words[FREE_INTERRUPTIONS]} in a row" in page
    assert f"more than {words[retries.max_idle_interruptions]} in a row" in page


def test_columns_that_pages_show_are_those_of_the_definition() -> None:
    (version,) = crd()["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    narrow, wide = ([c["name"].upper() for c in columns if bool(c.get("priority")) == wide] for wide in (False, True))
    shown = [
        block.text.splitlines() for block in blocks("console unrun") if block.text.startswith("$ kubectl get lmft")
    ]
    told = (ROOT / "docs/operations.md").read_text()

    assert shown
    assert all(lines[1].split() == ["NAME", *narrow] for lines in shown)
    assert f"# {' '.join(narrow)}\n" in told
    assert f"# and {' '.join(wide)}\n" in told


def test_images_that_pages_build_are_targets_of_the_dockerfile() -> None:
    named = {name for block in blocks("sh unrun") for name in re.findall(r"docker build --target (\w+)", block.text)}

    assert named == set(re.findall(r"^FROM base AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def test_every_example_is_in_the_table_of_examples() -> None:
    listed = re.findall(r"^\| \[([\w.-]+)\]\(\.\./examples/([\w.-]+)\)", prose(ROOT / "docs/manifest.md"), re.MULTILINE)

    assert all(text == target for text, target in listed)
    assert {target for _, target in listed} == {path.name for path in (ROOT / "examples").glob("*.yaml")}


def test_the_file_map_of_contributing_names_what_is_there() -> None:
    (map_block,) = blocks("text", pages=(ROOT / "CONTRIBUTING.md",))
    folder, named, listed, missing = ROOT, set(), set(), []
    for line in map_block.text.splitlines():
        words = re.split(r" {2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = ROOT / words[0]
            named.add(folder)
        else:
            missing += [f"{folder}/{name}" for name in words if not (folder / name).exists()]

            listed |= {folder / name for name in words}

    sides = {
        path.parent for side in ("api", "client", "operator", "jobimage") for path in ROOT.glob(f"{side}/*/__init__.py")
    }
    packages = {path.parent for side in sides for path in side.glob("*/__init__.py")}
    assert missing == []
    assert len(sides) == 4
    assert sides <= named
    assert packages <= listed


def test_targets_and_commands_that_pages_name_exist() -> None:
    makefiles = (ROOT / "Makefile", ROOT / "charts/chart.mk", ROOT / "tests/cluster/cluster.mk")
    text = "\n".join(path.read_text() for path in makefiles)
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    modules = [module.read_text() for module in (ROOT / "jobimage/lmft_job/cli").rglob("commands.py")]
    named = r"^def (\w+)\(|\bcommand\(\"([a-z-]+)\"\)"
    commands = {name for text in modules for found in re.findall(named, text, re.MULTILINE) for name in found if name}

    made = set(chain.from_iterable(m.split() for _, m in names(PAGES, r"^make ((?:[a-z0-9-]+ ?)+)$")))
    run = {command for _, command in names(PAGES, r"^lmft ([a-z][a-z-]*)")}

    assert made
    assert run
    assert made <= targets
    assert run <= commands
