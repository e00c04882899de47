"""What the objects of a release are called and labelled, whatever the release is called."""

import re
from typing import Any

import pytest
from chart.helm import HELMS, Rendered, render, sets


def test_extra_labels_are_on_every_object_and_never_in_a_selector() -> None:
    rendered = render(*sets("commonLabels.team=ml", "commonLabels.app\\.kubernetes\\.io/name=mine"))

    assert all(item["metadata"]["labels"]["team"] == "ml" for item in rendered.objects)
    assert rendered.pod["metadata"]["labels"]["team"] == "ml"
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert "team" not in selector
    assert selector.items() <= rendered.pod["metadata"]["labels"].items()


def test_two_releases_share_no_cluster_wide_object() -> None:
    def names(rendered: Rendered) -> set[tuple[str, str]]:
        return {(i["kind"], i["metadata"]["name"]) for i in rendered.objects if "namespace" not in i["metadata"]}

    one = render(namespace="team-a")
    other = render(*sets("crds.enabled=false"), namespace="team-b")

    assert names(one) & names(other) == set()


def test_names_stay_legal_for_the_longest_release() -> None:
    rendered = render(release="a" * 53)

    names = [item["metadata"]["name"] for item in rendered.objects if item["kind"] in {"Service", "Pod", "Deployment"}]
    assert all(len(name) <= 63 and not name.endswith("-") for name in names)
    host = rendered.config.split("url: https://")[1].split()[0]
    assert host.split(".")[0] in {service["metadata"]["name"] for service in rendered.all("Service")}


def test_images_go_by_digest_then_tag_then_the_charts_version() -> None:
    digest = "sha256:" + "a" * 64

    def image(*values: str) -> str:
        text: str = render(*sets(*values)).pod["spec"]["containers"][0]["image"]
        return text

    assert image() == "ghcr.io/lmfinetune/operator:0.1.0"
    assert image("image.tag=v7") == "ghcr.io/lmfinetune/operator:v7"
    assert image("image.tag=v7", f"image.digest={digest}") == f"ghcr.io/lmfinetune/operator@{digest}"


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("release", ["1.2", "9lives", "my.app", "a.b.c", "0", "lmfinetune.9", "lmfinetune", "x" * 53])
def test_objects_have_legal_names_whatever_the_release_is_called(release: str, helm: str) -> None:
    rendered = render(*sets("admissionPolicy.enabled=true"), release=release, helm=helm)

    for item in rendered.objects:
        name, kind = item["metadata"]["name"], item["kind"]
        if kind == "Service":  # DNS-1035
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), name
        elif kind != "CustomResourceDefinition":
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), name
    assert rendered.pod["metadata"]["labels"]["app.kubernetes.io/instance"] == release


@pytest.mark.parametrize("text", ["123", "1e3", "true", "null", "0x1"])
def test_names_that_look_like_other_things_stay_names(text: str) -> None:
    values = [f"nameOverride={text}", f"watchNamespaces={{{text}}}", f"serviceAccount.name={text}"]
    strings = [word for value in values for word in ("--set-string", value)]
    rendered = render(*strings, *sets("networkPolicy.enabled=true"), namespace=text)

    for item in (item for item in rendered.objects if item["kind"] != "CustomResourceDefinition"):
        assert not [leaf for leaf in names(item) if not isinstance(leaf, str)], item
    assert rendered.pod["spec"]["serviceAccountName"] == text


def names(node: Any) -> list[Any]:
    """Every name, namespace and label value of an object."""
    if isinstance(node, list):
        return [leaf for child in node for leaf in names(child)]
    if not isinstance(node, dict):
        return []
    own = [value for key, value in node.items() if key in ("name", "namespace", "serviceAccountName")]
    labels = [v for key in ("labels", "matchLabels", "selector") for v in (node.get(key) or {}).values()]
    return own + [v for v in labels if not isinstance(v, dict)] + [leaf for v in node.values() for leaf in names(v)]
