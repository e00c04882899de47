"""What a release is made of: its version, its changelog, kubectl's plugin, and the workflow that publishes it all."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.helm import BIN, CHART, ROOT

from lmft_api import __version__

DIGEST = f"sha256:{'d' * 64}"
FRAGMENT = "release/changes"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a release reads of the tree."""
    top = tmp_path / "tree"
    for folder in ("charts/lmfinetune", "release", "requirements"):
        shutil.copytree(ROOT / folder, top / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (top / "api/lmft_api").mkdir(parents=True)
    for file in ("api/lmft_api/__init__.py", "charts/release.py", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / file, top / file)
    return top


def python(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True, check=False)


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    page = (ROOT / "docs/install.md").read_text()

    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert [entry["image"] for entry in images] == [
        f"ghcr.io/lmfinetune/{name}:{__version__}" for name in ("operator", "job")
    ]
    [screenshot] = yaml.safe_load(chart["annotations"]["artifacthub.io/screenshots"])
    for address in (chart["icon"], screenshot["url"]):
        assert (ROOT / address.partition("/main/")[2]).is_file()
    assert set(re.findall(r"/(?:operator|job):([0-9.]+[0-9])", page)) == {__version__}


def test_a_tag_of_another_version_makes_no_release(tree: Path) -> None:
    assert python(tree, "release/version.py", f"v{__version__}").stdout == f"{__version__}\n"
    refused = python(tree, "release/version.py", "v9.9.9")
    assert refused.returncode == 1
    assert "the tag v9.9.9 is not v" in refused.stderr


def test_fragments_become_a_section_of_the_changelog_and_are_gone(tree: Path) -> None:
    shutil.rmtree(tree / FRAGMENT)
    for name, version in (("first", "1.0.0"), ("second", "1.1.0")):
        (tree / FRAGMENT).mkdir(exist_ok=True)
        (tree / FRAGMENT / f"{name}.fixed.md").write_text(f"The {name}\nfault.\n")
        (tree / FRAGMENT / f"{name}.added.md").write_text(f"The {name} thing.\n")
        done = python(tree, "release/changelog.py", version, "2026-12-01")
        assert done.returncode == 0, done.stderr

    changelog = (tree / "CHANGELOG.md").read_text()
    assert changelog.startswith("# Changelog\n")
    assert changelog.index("## 1.1.0 (2026-12-01)") < changelog.index("## 1.0.0 (2026-12-01)")
    assert list((tree / FRAGMENT).iterdir()) == []
    notes = python(tree, "release/changelog.py", "--notes", "1.0.0").stdout
    assert notes == "### Added\n\n- The first thing.\n\n### Fixed\n\n- The first fault.\n"
    assert "no section 2.0.0" in python(tree, "release/changelog.py", "--notes", "2.0.0").stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("word.md", "A text.", "word.md"),
        ("word.better.md", "A text.", "word.better.md"),
        ("word.fixed.md", " \n", "word.fixed.md"),
        (None, "", "no fragments"),
    ],
)
def test_what_is_no_fragment_is_refused_and_kept(name: str | None, text: str, said: str, tree: Path) -> None:
    for path in (tree / FRAGMENT).iterdir():
        path.unlink()
    if name is not None:
        (tree / FRAGMENT / name).write_text(text)
    before = (tree / "CHANGELOG.md").read_text()

    refused = python(tree, "release/changelog.py", "1.0.0", "2026-12-01")

    assert refused.returncode == 1
    assert said in refused.stderr
    assert (tree / "CHANGELOG.md").read_text() == before
    assert [path.name for path in (tree / FRAGMENT).iterdir()] == ([name] if name else [])


def test_the_fragments_of_the_tree_can_be_released(tree: Path) -> None:
    assert python(tree, "release/changelog.py", __version__, "2026-12-01").returncode == 0


def test_kubectls_plugin_runs_the_version_that_its_manifest_names(tree: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        assert python(tree, "release/krew.py", "1.2.3", str(tmp_path / place)).returncode == 0
    manifest = yaml.safe_load((tmp_path / "one/lmft.yaml").read_text())
    packed = (tmp_path / "one/kubectl-lmft-v1.2.3.tar.gz").read_bytes()

    assert packed == (tmp_path / "two/kubectl-lmft-v1.2.3.tar.gz").read_bytes()
    assert (manifest["metadata"]["name"], manifest["spec"]["version"]) == ("lmft", "v1.2.3")
    for platform in manifest["spec"]["platforms"]:
        assert platform["sha256"] == hashlib.sha256(packed).hexdigest()
        assert platform["uri"].endswith("/v1.2.3/kubectl-lmft-v1.2.3.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(tmp_path / "plugin", filter="data")
    launcher = tmp_path / "plugin" / manifest["spec"]["platforms"][0]["bin"]
    # with uv it is run by uv, and without either it says what to install
    (tmp_path / "bin").mkdir()
    stand_in(tmp_path / "bin" / "uvx", 'echo "$@"')
    for path, code, said in (
        (f"{tmp_path / 'bin'}:/usr/bin:/bin", 0, "--from lmfinetune==1.2.3 kubectl-lmft ls -A"),
        ("/nonexistent", 2, "needs uv"),
    ):
        done = subprocess.run([launcher, "ls", "-A"], env={"PATH": path}, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True)


def test_the_bill_of_materials_has_every_pinned_package(tree: Path) -> None:
    bill = json.loads(python(tree, "release/sbom.py", "1.2.3", "requirements/job.txt").stdout)

    lock = (ROOT / "requirements/job.txt").read_text()
    assert [f"{part['name']}=={part['version']}" for part in bill["components"]] == re.findall(
        r"^([\w.-]+==[^ ;\\]+)", lock, re.MULTILINE
    )
    hashes = [entry["content"] for part in bill["components"] for entry in part["externalReferences"][0]["hashes"]]
    assert hashes == re.findall(r"sha256:([0-9a-f]{64})", lock)
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", "1.2.3")


def stand_in(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step and "sudo rm" not in step["run"]]


def test_the_workflow_publishes_what_it_built_and_signs_it_by_digest(tree: Path, tmp_path: Path) -> None:
    # given a tag, a changelog with its section, and stand-ins for what publishes
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())["jobs"]
    assert python(tree, "release/changelog.py", __version__, "2026-12-01").returncode == 0
    said, tools, home = tmp_path / "said", tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    (home / ".cache/lmft-cluster").mkdir(parents=True)
    (tree / "tests/cluster/local").mkdir(parents=True)
    stand_in(tree / "tests/cluster/local/cluster", "exit 0")
    read = 'case "$*" in *--password-stdin*) cat >/dev/null ;; esac'  # as they do, else who writes to them is killed
    record = f'{read}; echo "${{0##*/}} $*" >>{said}'
    stand_in(tools / "docker", f'{record}; [ "$3" != inspect ] || echo {DIGEST}')
    stand_in(tools / "cosign", f'{record}; [ "$1" != sign-blob ] || touch "$4"')
    stand_in(tools / "pip", record)
    stand_in(tools / "uv", f"{record}; mkdir -p dist; touch dist/lmfinetune.whl dist/lmfinetune.tar.gz")
    stand_in(tools / "gh", record)
    stand_in(
        home / ".cache/lmft-cluster/helm",
        f'{record}; case $1 in package) exec {BIN / "helm"} "$@" ;; push) echo "Digest: {DIGEST}" ;; esac',
    )
    environment = {
        **os.environ, "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home),
        "GITHUB_REF_NAME": f"v{__version__}", "GITHUB_ACTOR": "somebody", "RUNNER_ARCH": "X64", "TOKEN": "secret",
        "REGISTRY": "ghcr.io/lmfinetune", "GH_TOKEN": "secret",
    }  # fmt: skip

    # when the commands of both jobs run
    for script in [*scripts(jobs["images"]), *scripts(jobs["publish"])]:
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"

    # then images, chart and checksums are signed, the images as one for both processors
    lines = said.read_text().splitlines()
    signed = [line.split()[-1] for line in lines if line.startswith("cosign sign ")]
    assert signed == [f"ghcr.io/lmfinetune/{name}@{DIGEST}" for name in ("operator", "job", "charts/lmfinetune")]
    image = f"ghcr.io/lmfinetune/job:{__version__}"
    assert f"docker buildx imagetools create --tag {image} {image}-X64 {image}-ARM64" in lines
    assert not any("secret" in line for line in lines)
    # and what is published names them by these digests
    [chart] = (tree / "packaged").glob("*.tgz")
    values = subprocess.run([BIN / "helm", "show", "values", chart], capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(values)["job"]["image"]["digest"] == DIGEST
    published = next(line for line in lines if line.startswith("gh release create"))
    sums, plugin = (tree / "assets/checksums.txt").read_text(), f"kubectl-lmft-v{__version__}.tar.gz"
    for name in ("lmft.yaml", plugin, "lmfinetune.cdx.json", chart.name, "lmfinetune.whl"):
        assert f"assets/{name}" in published.split()
        assert f"  {name}\n" in sums
