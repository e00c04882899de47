"""With the base dependencies alone, as after ``pipx install lmfinetune``: what trains says what to install."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, files, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = ROOT / "examples" / "quickstart.yaml"
SERVED = {
    f"validate {MANIFEST}": 0,
    "schema": 0,
    f"sweep {MANIFEST} --sweep training.seed=1,2": 0,
    "ls": 0,
    "ls -A": 2,
    "logs quickstart": 2,
    "watch quickstart": 2,
    "wait quickstart": 2,
    "suspend quickstart": 2,
    "resume quickstart": 2,
    "cancel quickstart": 2,
    "compare one other": 2,
    "open quickstart": 2,
    "ui nowhere": 2,
    "ui -n team-a": 2,
    "open quickstart -n team-a": 2,
}
TRAINS = (
    f"run {MANIFEST}", "demo", f"preview {MANIFEST}", f"estimate {MANIFEST}", f"validate --data {MANIFEST}",
    f"init {MANIFEST}"
)  # fmt: skip
SCRIPT = """
import sys

class Base:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Base())
from lmft_job.cli.__main__ import main

for words in {commands!r}:
    sys.argv = ["lmft", *words.split()]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    print(f"\\n{{words}} -> {{int(code)}}", file=sys.stderr, flush=True)
"""


def installed_with_base() -> set[str]:
    """Names of the distributions that the base dependencies bring, one another's included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [Requirement(text) for text in project["dependencies"]]
    found: set[str] = set()
    while todo:
        wanted = todo.pop()
        name = re.sub("[-_.]+", "-", wanted.name).lower()
        if name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            todo += [Requirement(text) for text in requires(wanted.name) or ()]
        except PackageNotFoundError:
            continue
        found.add(name)
    return found


def test_clusters_are_served_and_training_says_what_to_install(tmp_path: Path) -> None:
    # given only those packages, and no cluster
    base = {file.parts[0].partition(".")[0] for name in installed_with_base() for file in files(name) or ()}
    missing = {path.name.partition(".")[0] for path in Path(sysconfig.get_path("purelib")).iterdir()} - base - {""}
    assert {"torch", "numpy", "boto3"} <= missing
    assert not missing & {"kubernetes", "yaml", "pydantic"}

    # when every command is given
    script = SCRIPT.format(missing=missing, commands=[*SERVED, *TRAINS])
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)

    # then those that need no training do their work, and the others end with the command that installs what they need
    said = {}
    for part in re.findall(r"(.*?)\n?([^\n]+) -> (\d+)\n", done.stderr, re.DOTALL):
        said[part[1]] = (int(part[2]), part[0].strip())
    assert {words: code for words, (code, _) in said.items() if words in SERVED} == SERVED, done.stderr
    assert not [words for words in SERVED if "pip install" in said[words][1]]
    for words in TRAINS:
        code, text = said[words]
        assert code == 2, text
        assert "pip install 'lmfinetune[job]'" in text.splitlines()[-1]
