"""What a person is told who has just installed the chart."""

import subprocess

import pytest
import yaml
from chart.helm import CHART, run, sets

from lmft_api.manifest.validation import document_problems


@pytest.mark.parametrize(
    "values", [[], ["defaults.output.uri=s3://models"]], ids=["no default output", "default output"]
)
def test_the_first_manifest_in_the_notes_is_valid(values: list[str]) -> None:
    # Helm 3 wants a cluster even for this.
    notes = run("helm", "install", "lmfinetune", str(CHART), "--dry-run=client", *sets(*values)).split("NOTES:")[1]

    manifest = yaml.safe_load(pasted(notes))

    assert document_problems(manifest) == []
    assert ("output" in manifest["spec"]) == (not values)
    assert [line for line in notes.splitlines() if line.startswith(("1. ", "2. ", "3. "))]


def pasted(notes: str) -> str:
    """What kubectl would read if a person pasted the commands of the notes into a shell."""
    start = notes.index("\nkubectl -n default apply") + 1
    end = notes.index("\n\n3. ", start)
    script = f"kubectl() {{ cat; }}\n{notes[start:end]}\necho pasted\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    manifest, _, rest = done.stdout.rpartition("pasted")
    assert (rest, done.stderr) == ("\n", "")  # a shell that still looks for the end of the text would warn
    return manifest
