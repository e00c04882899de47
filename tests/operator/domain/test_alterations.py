"""What the cluster's policies may do to a Job, and what makes it useless: as the API server's answer is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmft_api.wire.run_file import ATTEMPT_LABEL, NODES_LABEL, RUN_ANNOTATION, RUN_LABEL
from lmft_operator.cluster.reading import read_object
from lmft_operator.domain.alterations import unusable

Job = dict[str, Any]
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.yaml"))
PLAIN: Job = yaml.safe_load((Path(__file__).parents[1] / "golden/plain.yaml").read_text())


def answered(job: Job, change: Callable[[Job], object] = lambda job: None) -> Job:
    """The API server's answer to a Job, after a policy has changed it, as the operator reads it."""
    made = json.loads(json.dumps(job))
    made["metadata"] |= {"uid": "job-1", "resourceVersion": "7"}
    change(made)
    return read_object(json.dumps(made))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_every_job_that_comes_back_as_it_was_sent_is_used(file):
    job = yaml.safe_load(file.read_text())
    assert unusable(job, answered(job)) == ""


def template(job: Job) -> Job:
    found: Job = job["spec"]["template"]
    return found


HARMLESS: dict[str, Callable[[Job], object]] = {
    "another image": lambda job: template(job)["spec"]["containers"][0].update(image="mirror.example.com/job:1"),
    "more labels": lambda job: job["metadata"]["labels"].update(team="a"),
    "a container before ours": lambda job: template(job)["spec"]["containers"].insert(0, {"name": "a", "image": "a"}),
    "one more owner": lambda job: job["metadata"]["ownerReferences"].append({"kind": "Team", "name": "a", "uid": "b"}),
    "retries": lambda job: job["spec"].update(backoffLimit=6),
    "Kubernetes' own controller by name": lambda job: job["spec"].update(managedBy="kubernetes.io/job-controller"),
    "another controller": lambda job: job["spec"].update(managedBy="kueue.x-k8s.io/multikueue"),
    "a finalizer": lambda job: job["metadata"].update(finalizers=["example.com/audit"]),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_can_be_lived_with_is_used(change):
    assert unusable(PLAIN, answered(PLAIN, change)) == ""


USELESS: dict[str, tuple[Callable[[Job], object], str]] = {
    "no label": (lambda job: job["metadata"]["labels"].pop(RUN_LABEL), f"metadata.labels[{RUN_LABEL}]"),
    "no labels": (lambda job: job["metadata"].pop("labels"), f"metadata.labels[{RUN_LABEL}]"),
    "another number": (
        lambda job: job["metadata"]["labels"].update({ATTEMPT_LABEL: "7"}),
        f"metadata.labels[{ATTEMPT_LABEL}]",
    ),
    "no owner": (lambda job: job["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
    "no label of the pod": (
        lambda job: template(job)["metadata"]["labels"].pop(RUN_LABEL),
        f"spec.template.metadata.labels[{RUN_LABEL}]",
    ),
    "no run file": (
        lambda job: template(job)["metadata"]["annotations"].pop(RUN_ANNOTATION),
        f"spec.template.metadata.annotations[{RUN_ANNOTATION}]",
    ),
    "another name": (lambda job: template(job)["spec"]["containers"][0].update(name="main"), "the container job"),
    "no pod": (lambda job: job["spec"].update(parallelism=0), "parallelism 0 rather than 1"),
    "a pod that starts again": (
        lambda job: template(job)["spec"].update(restartPolicy="OnFailure"),
        "template.spec.restartPolicy OnFailure rather than Never",
    ),
    "two pods": (lambda job: job["spec"].update(completions=2), "completions 2 rather than 1"),
}


@pytest.mark.parametrize(("change", "words"), USELESS.values(), ids=USELESS)
def test_what_nobody_could_follow_is_withdrawn_and_named(change, words):
    said = unusable(PLAIN, answered(PLAIN, change))
    assert words in said
    assert said.startswith("A policy of the cluster has changed the Job: ")
    assert "It was deleted" in said


SEVERAL: Job = yaml.safe_load((Path(__file__).parents[1] / "golden/several.yaml").read_text())
OF_SEVERAL: dict[str, Callable[[Job], object]] = {
    "fewer pods at a time": lambda job: job["spec"].update(parallelism=1),
    "more pods": lambda job: job["spec"].update(completions=4),
    "pods without numbers": lambda job: job["spec"].update(completionMode="NonIndexed"),
    "without their number in the labels": lambda job: job["metadata"]["labels"].pop(NODES_LABEL),
}


@pytest.mark.parametrize("change", OF_SEVERAL.values(), ids=OF_SEVERAL)
def test_a_job_of_several_pods_makes_as_many_as_it_was_to(change):
    assert "It was deleted" in unusable(SEVERAL, answered(SEVERAL, change))
    assert unusable(SEVERAL, answered(SEVERAL)) == ""
