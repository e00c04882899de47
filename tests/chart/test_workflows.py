"""The scripts of workflows that run elsewhere, run here with stand-ins for the registry and the forge."""

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DIGEST = f"sha256:{'a' * 64}"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_new_base_image_is_asked_for_once(tmp_path: Path) -> None:
    # given a repository whose Dockerfile has an older digest, and a registry that has a newer one
    steps = yaml.safe_load((ROOT / ".github/workflows/update.yaml").read_text())["jobs"]["base-image"]["steps"]
    script = "\n".join(step["run"] for step in steps if "run" in step)
    (tmp_path / "bin").mkdir()
    for name, body in {"docker": f"echo {DIGEST}", "gh": f'echo "$@" >> {tmp_path}/asked'}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "first")
    (tmp_path / "first" / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    git(tmp_path / "first", "add", "Dockerfile")
    git(tmp_path / "first", "commit", "--quiet", "--message", "first")
    git(tmp_path, "clone", "--quiet", "--bare", "first", "origin.git")

    # when the workflow runs twice before anybody merges what it asked for
    for number in (1, 2):
        git(tmp_path, "clone", "--quiet", "origin.git", f"work-{number}")
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=tmp_path / f"work-{number}",
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            check=True,
        )

    # then there is one branch, which changes the digest alone, and one pull request
    branch = f"update/base-image-{'a' * 12}"
    assert (tmp_path / "asked").read_text() == "pr create --fill\n"
    changes = git(tmp_path / "origin.git", "diff", "--unified=0", "main", branch).splitlines()
    assert [line[:12] for line in changes if line.startswith(("-A", "+A"))] == ["-ARG PYTHON=", "+ARG PYTHON="]
    assert next(line for line in changes if line.startswith("+A")).endswith(f"@{DIGEST}")
    assert len([line for line in changes if line[:1] in "+-" and line[:3] not in ("+++", "---")]) == 2
