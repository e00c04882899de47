"""A release names its images by digest, as the registry told them; the tree names none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from chart.helm import CHART, ROOT, run

OPERATOR, JOB = (f"sha256:{letter * 64}" for letter in "ab")


def release(chart: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "charts/release.py", chart, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    shutil.copytree(CHART, tmp_path / "chart")
    for name, digest in (("operator", OPERATOR), ("job", JOB)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"containerimage.digest": digest}))
    return tmp_path / "chart"


def test_the_chart_of_a_release_names_its_images_by_digest(chart: Path) -> None:
    files = [f"{name}={chart.parent / name}.json" for name in ("operator", "job")]

    assert release(chart, "--version", "1.2.3", *files).returncode == 0

    text = run("helm", "template", "r", str(chart), "--kube-version", "1.30.0")
    objects = [item for item in yaml.safe_load_all(text) if item]
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    (settings,) = [item["data"]["config.yaml"] for item in objects if item["kind"] == "ConfigMap"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"ghcr.io/lmfinetune/operator@{OPERATOR}"
    assert yaml.safe_load(settings)["job"]["image"] == f"ghcr.io/lmfinetune/job@{JOB}"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3"
    chart_file = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert chart_file["annotations"]["artifacthub.io/images"].count(":1.2.3\n") == 2
    # and a second time there is nothing to fill in
    assert release(chart, "--version", "1.2.3", *files).returncode != 0


@pytest.mark.parametrize("metadata", ["{}", '{"containerimage.digest": "latest"}', '{"containerimage.digest": 7}'])
def test_without_a_digest_there_is_no_release(chart: Path, metadata: str) -> None:
    (chart.parent / "job.json").write_text(metadata)
    before = (chart / "values.yaml").read_text()

    assert "no containerimage.digest" in release(chart, "--version", "1.2.3", f"job={chart.parent}/job.json").stderr
    assert (chart / "values.yaml").read_text() == before


def test_no_digest_is_typed() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert (values["image"]["digest"], values["job"]["image"]["digest"]) == ("", "")
