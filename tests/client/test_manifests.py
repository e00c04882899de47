"""What may be given for a manifest."""

from pathlib import Path
from typing import Any

import pytest

from lmft import InvalidManifest
from lmft.manifests import Manifest, resource_of
from lmft_api.manifest.validation import parse_spec

SPEC: dict[str, Any] = {
    "model": {"name": "gpt2"},
    "dataset": {"builtin": "PythonDocs"},
    "output": {"uri": "s3://models/test"},
}
WHOLE = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "eli5", "namespace": "team-b", "labels": {"team": "b"}},
    "spec": SPEC,
}
TEXT = """\
apiVersion: v1
kind: Secret
metadata: {name: keys}
---
apiVersion: lmfinetune.dev/v1alpha1
kind: LMFineTune
metadata: {name: eli5}
spec:
  model: {name: gpt2}
  dataset: {builtin: PythonDocs}
  output: {uri: "s3://models/test"}
"""


@pytest.mark.parametrize(
    ("manifest", "name", "metadata"),
    [
        (WHOLE, None, {"namespace": "team-b", "name": "eli5", "labels": {"team": "b"}}),
        (WHOLE, "other", {"namespace": "team-b", "name": "other", "labels": {"team": "b"}}),
        ({"metadata": {"name": "eli5"}, "spec": SPEC}, None, {"namespace": "team-a", "name": "eli5"}),
        (SPEC, "eli5", {"namespace": "team-a", "name": "eli5"}),
        (parse_spec(SPEC), "eli5", {"namespace": "team-a", "name": "eli5"}),
        (TEXT, None, {"namespace": "team-a", "name": "eli5"}),
        ({"spec": SPEC, "metadata": {"generateName": "eli5-"}}, None, {"namespace": "team-a", "generateName": "eli5-"}),
    ],
)  # fmt: skip
def test_a_resource_is_made_of_every_form(manifest: Manifest, name: str | None, metadata: Any) -> None:
    made = resource_of(manifest, name, "team-a")

    assert (made["apiVersion"], made["kind"]) == ("lmfinetune.dev/v1alpha1", "LMFineTune")
    assert made["metadata"] == metadata
    assert made["spec"] | {"task": "CausalLM"} == SPEC | {"task": "CausalLM"}


@pytest.mark.parametrize("as_path", [Path, str])
def test_a_file_is_read_by_its_path(as_path: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(TEXT)
    assert resource_of(as_path(file), None, "team-a")["metadata"]["name"] == "eli5"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (SPEC, "metadata.name: is required"),
        ({"model": {"name": "gpt2"}}, "spec.dataset: is required"),
        ({"metadata": "x", "spec": SPEC}, "metadata: must be an object with a name"),
        (TEXT.replace("builtin", "buildin"), "line 10: spec.dataset.buildin: unknown field; did you mean builtin?"),
        (TEXT + "---\n" + TEXT, "must contain exactly one LMFineTune, not 2"),
        ("", "must contain exactly one LMFineTune, not 0"),
        ("kind: [", "is not valid YAML"),
        ("- 1\n", "must be an object with apiVersion"),
        ("no-such-file.yaml", "no-such-file.yaml: 1 problem\n  cannot be read: No such file or directory"),
        (Path("no-such-file"), "cannot be read"),
        ({"spec": {**SPEC, "\x1b[2J": 1}}, "unknown field"),
    ],
)
def test_what_is_no_run_is_refused_with_its_problems(manifest: Manifest, said: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        resource_of(manifest, None, "team-a")

    assert said in str(refused.value)
    assert refused.value.problems
    assert "\x1b" not in str(refused.value)


def test_what_only_a_later_release_knows_is_left_to_the_server() -> None:
    made = resource_of({"spec": {**SPEC, "later": 1}}, "eli5", "team-a", validate=False)
    assert made["spec"]["later"] == 1
