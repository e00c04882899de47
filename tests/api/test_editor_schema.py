"""The JSON Schema for editors: what it accepts is what validation accepts, as far as single fields go."""

import pytest
from api.manifests import Case, cases
from jsonschema import Draft202012Validator

from lmft_api.generate.editor_schema import editor_schema
from lmft_api.schema.structural import normalised, structural_schema
from lmft_api.spec import LMFineTuneSpec

SCHEMA = Draft202012Validator(editor_schema())
GOOD = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "eli5"},
    "spec": {
        "model": {"name": "gpt2"},
        "dataset": {"name": "dany0407/eli5_category"},
        "output": {"uri": "s3://models/test"},
        "training": {"learningRate": "2e-5", "epochs": 3},
    },
}


def test_it_is_a_schema():
    Draft202012Validator.check_schema(editor_schema())


@pytest.mark.parametrize("case", list(cases("accepted")), ids=str)
def test_a_good_manifest_passes(case: Case):
    # An empty field counts as unset for the API server; an editor underlines it, which is a good hint.
    content = {**case.content, "spec": normalised(structural_schema(LMFineTuneSpec), case.content["spec"])}
    assert [error.message for error in SCHEMA.iter_errors(content)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "training", "learningrate"), "2e-5"),
        (("spec", "training", "learningRate"), 2e-5),
        (("spec", "training", "epochs"), 0),
        (("spec", "task"), "Causal"),
        (("spec", "dataset", "files"), "s3://corpora/a.jsonl"),
        (("kind",), "Job"),
        (("metadata",), {}),
        (("trainig",), {}),
    ],
)
def test_a_mistake_in_one_field_is_underlined_there(path, value):
    manifest = {**GOOD, "spec": {name: {**entry} for name, entry in GOOD["spec"].items()}}
    inner = manifest
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value

    errors = list(SCHEMA.iter_errors(manifest))

    assert list(SCHEMA.iter_errors(GOOD)) == []
    assert any(path[: len(error.path)] == tuple(error.path) for error in errors)


def test_every_field_is_explained():
    def unexplained(schema: dict, path: str):
        for name, entry in schema.get("properties", {}).items():
            if "description" not in entry:
                yield f"{path}.{name}"
            yield from unexplained(entry, f"{path}.{name}")

    assert list(unexplained(editor_schema()["properties"]["spec"], "spec")) == []
