"""The commands of the pages, typed on a real cluster in the pages' order.

What is replaced: the namespace ``team-a`` by one that is free, the images by those under test, and the two minutes of
training by a pod that only says it trained; test_quickstart.py runs the example as it stands.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.node.node import Node, Run, Team, numbers, tool
from cluster.node.release import install
from docs.pages import CHART_README, PAGES, ROOT, Block, blocks, transcript
from docs.workplace import Workplace

FROM_NOTHING = (ROOT / "README.md", ROOT / "docs/install.md", CHART_README)
"""These pages begin on a cluster without us; the others where there is a release, and a run called quickstart."""
TYPED = [page for page in PAGES if blocks("sh cluster", "console cluster", pages=(page,))]


@pytest.fixture(scope="module")
def values(release: Node) -> Iterator[str]:
    """The values under test. The release of the other tests gives way to those of the pages, and comes back."""
    yield release.run("helm", "get", "values", "lmfinetune", "-n", "lmft-system", "-o", "json").stdout
    install(release)


@pytest.fixture
def workplace(release: Node, values: str, tmp_path: Path) -> Workplace:
    (tmp_path / "under-test.json").write_text(values)
    place = Workplace(tmp_path)
    place.program("kubectl", f'exec "{tool("kubectl")}" "$@"')
    place.program(
        "helm",
        f'case $1 in install | upgrade) set -- "$@" --values "{tmp_path}/under-test.json" ;; esac\n'
        f'exec "{tool("helm")}" "$@"',
    )
    orders = [{"seconds": 6}, {}]  # of the first attempt, and of those after it
    place.example(
        "quickstart.yaml", sample={"prompts": [json.dumps(orders)]}, podTemplate={"image": release.images["stub"]}
    )
    return place


@pytest.fixture
def namespace(release: Node) -> Iterator[str]:
    """The name of a namespace that does not exist yet."""
    name = f"docs-{os.getpid()}-{next(numbers)}"
    yield name
    release.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def running(node: Node, namespace: str, workplace: Workplace) -> None:
    """A namespace with the Secret of the storage, and the quickstart with its pod running."""
    node.kubectl("create", "namespace", namespace)
    node.kubectl("create", "secret", "generic", "lmft-s3", "-n", namespace, "--from-literal=AWS_ACCESS_KEY_ID=test",
                 "--from-literal=AWS_SECRET_ACCESS_KEY=testsecret")  # fmt: skip
    node.kubectl("apply", "-n", namespace, "-f", str(workplace.folder / "examples/quickstart.yaml"))
    Run(Team(node, namespace), "quickstart").running_pod()


def type_it(block: Block, node: Node, namespace: str, workplace: Workplace) -> None:
    environment = {
        "KUBECONFIG": node.kubeconfig,
        "AWS_ACCESS_KEY_ID": node.s3_key,
        "AWS_SECRET_ACCESS_KEY": node.s3_secret,
    }

    def type_in(command: str) -> tuple[int, str]:
        done = workplace.type(block, command.replace("team-a", namespace), environment)
        return done.returncode, done.stdout

    if block.kind == "sh cluster":
        code, printed = type_in(block.text)
        assert code == 0, f"{block.where}\n{printed}"
    else:
        for command, expected in transcript(block):
            assert type_in(command)[1] == expected, block.where


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_succeed_in_its_order(
    page: Path, release: Node, namespace: str, workplace: Workplace
) -> None:
    if page in FROM_NOTHING:
        release.run("helm", "uninstall", "lmfinetune", "-n", "lmft-system", "--wait", "--ignore-not-found")
    else:
        install(release)
        running(release, namespace, workplace)

    for block in blocks("sh cluster", "console cluster", pages=(page,)):
        type_it(block, release, namespace, workplace)
