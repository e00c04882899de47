"""What runs on the project's own account: actions by commit, few rights, and nothing of a stranger's in a shell."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_named_by_commit_with_their_version_beside(file: Path) -> None:
    uses = re.findall(r"uses: (.*)$", file.read_text(), re.MULTILINE)

    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+", line)] == []


def test_an_action_has_one_commit_everywhere() -> None:
    text = "\n".join(file.read_text() for file in WORKFLOWS)
    commits: dict[str, set[str]] = {}
    for action, commit in re.findall(r"uses: ([\w-]+/[\w-]+)[\w/-]*@(\S+ # \S+)", text):
        commits.setdefault(action, set()).add(commit)

    assert {action: found for action, found in commits.items() if len(found) > 1} == {}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_read_and_says_where_it_may_do_more(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow[True]  # "on" is true in YAML 1.1
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_no_text_of_an_event_is_part_of_a_command(file: Path) -> None:
    commands = [step["run"] for step in steps(yaml.safe_load(file.read_text())) if "run" in step]

    assert [command for command in commands if "${{" in command] == []
