"""``--set FIELD=VALUE`` and ``--sweep FIELD=VALUE,VALUE``: what is typed, and what becomes of the manifest."""

from typing import Any

import pytest

from lmft_api.manifest.changes import Change, changed, parse_change, parse_choices
from lmft_api.manifest.validation import document_problems

RUN = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "a"},
    "spec": {"model": {"name": "gpt2"}, "dataset": {"name": "c/d"}, "sample": {"prompts": ["one", "two"]}},
}


@pytest.mark.parametrize(
    ("typed", "path", "value"),
    [
        ("training.learningRate=5e-5", ("training", "learningRate"), "5e-5"),  # text, as the field wants it
        ('training.learningRate="5e-5"', ("training", "learningRate"), "5e-5"),
        ("spec.training.epochs=3", ("training", "epochs"), 3),
        ("training.precision=BF16", ("training", "precision"), "BF16"),
        ("model.revision=1e3", ("model", "revision"), "1e3"),
        ("model.trustRemoteCode=true", ("model", "trustRemoteCode"), True),
        ("suspend=yes", ("suspend",), True),  # as kubectl reads it
        ("model.fromConfig={n_embd: 8, act: gelu}", ("model", "fromConfig"), {"n_embd": 8, "act": "gelu"}),
        ("sample.prompts=[a, b]", ("sample", "prompts"), ["a", "b"]),
        ("sample.prompts[1]=a=b", ("sample", "prompts", 1), "a=b"),
        ('podTemplate.nodeSelector["nvidia.com/gpu.product"]=H100',
         ("podTemplate", "nodeSelector", "nvidia.com/gpu.product"), "H100"),
        ("training.adapter=", ("training", "adapter"), None),
        ("training.adapter=null", ("training", "adapter"), None),
        ("training.adapter={}", ("training", "adapter"), {}),
    ],
)  # fmt: skip
def test_a_value_is_one_yaml_value_of_the_fields_type(typed: str, path: tuple[str | int, ...], value: Any) -> None:
    assert parse_change(typed) == Change(path, value)


@pytest.mark.parametrize(
    "typed", ["", "training", "=1", "[0]=1", "a..b=1", "training.=1", "a b=[", "a={", "a=1,2", "a=: ["]
)
def test_what_is_no_change_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(ValueError, match=r"write FIELD=VALUE|is not a list of YAML values|is more than one value"):
        parse_change(typed)


def test_a_change_reaches_its_field_and_leaves_the_manifest_it_was_made_from_alone() -> None:
    changes = [parse_change(text) for text in ("training.adapter.rank=8", "sample.prompts[0]=first", "dataset.split=")]

    found = changed(RUN, changes)

    assert found["spec"]["training"] == {"adapter": {"rank": 8}}
    assert found["spec"]["sample"] == {"prompts": ["first", "two"]}
    assert "training" not in RUN["spec"]
    assert document_problems(found) == []


def test_a_field_that_there_is_not_is_a_problem_of_the_manifest() -> None:
    [problem] = document_problems(changed(RUN, [parse_change("training.lr=1")]))
    assert str(problem) == "spec.training.lr: unknown field; did you mean learningRate?"


def test_an_entry_that_a_list_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r'"sample.prompts\[2\]": the manifest has 2 entries there, counted from 0'):
        changed(RUN, [parse_change("sample.prompts[2]=x")])


def test_choices_are_yaml_values_between_commas() -> None:
    rates = parse_choices("training.learningRate=1e-5,5e-5")
    modules = parse_choices("training.adapter.targetModules=[q_proj, v_proj],[all-linear]")

    assert [change.value for change in rates] == ["1e-5", "5e-5"]
    assert [change.value for change in modules] == [["q_proj", "v_proj"], ["all-linear"]]


@pytest.mark.parametrize(
    ("typed", "why"), [("a=", "has no values"), ("a=1,1", "1 is given twice"), ("a=" + "1," * 100, "is given twice|64")]
)
def test_choices_without_a_choice_are_refused(typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_choices(typed)
