"""Preparing on a CPU before a GPU is taken, and starting from what another run has left."""

import json
from collections.abc import Iterator

import pytest
from cluster.node.node import Json, Node, Run, Team
from cluster.node.training import SECRET, Folder, reasons, small, texts, toy

GPU = "example.com/gpu"


@pytest.fixture
def gpu(release: Node) -> Iterator[None]:
    """The node says that it has a GPU, as a device plugin would make it say."""

    def patch(operation: Json) -> None:
        paths = [f"/status/{field}/{GPU.replace('/', '~1')}" for field in ("capacity", "allocatable")]
        operations = json.dumps([{**operation, "path": path} for path in paths])
        release.kubectl("patch", "node", release.name, "--subresource=status", "--type=json", "-p", operations)

    patch({"op": "add", "value": "1"})
    yield
    patch({"op": "remove"})


def of_stage(objects: list[Json], stage: str) -> Json:
    [found] = [item for item in objects if item["metadata"]["labels"]["lmfinetune.dev/stage"] == stage]
    return found


def container(run: Run, stage: str) -> Json:
    found: Json = of_stage(run.jobs(), stage)["spec"]["template"]["spec"]["containers"][0]
    return found


def stages(run: Run) -> list[str]:
    return [attempt["stage"] for attempt in run.status["attempts"]]


def test_a_gpu_is_asked_for_only_once_model_and_data_are_prepared(team: Team, gpu: None, s3) -> None:
    run = team.apply("big", small(texts(s3, team), resources={"gpusPerNode": 1, "gpuResourceName": GPU}))
    run.until("Preparing", "Training", seconds=60)
    condition = run.until("AcceleratorMissing", seconds=180)
    assert "gpuResourceName" in condition["message"]
    assert stages(run) == ["Prepare", "Train"]
    assert reasons(run) == ["Completed", "AcceleratorMissing"]
    prepare, train = (container(run, stage) for stage in ("Prepare", "Train"))
    assert GPU not in json.dumps(prepare)
    assert train["resources"]["limits"][GPU] == train["resources"]["requests"][GPU] == "1"
    assert run.status["usage"]["gpuSeconds"] < run.status["usage"]["seconds"]
    assert "Preparing" in dict(run.events("Preparing"))


def test_the_train_job_starts_from_what_the_prepare_job_left(team: Team, s3) -> None:
    run = team.apply("separate", small(texts(s3, team), preparation="Separate"))
    run.until("Completed", seconds=180)
    assert stages(run) == ["Prepare", "Train"]
    assert reasons(run) == ["Completed", "Completed"]
    assert run.status["provenance"]["datasetFingerprint"]
    prepare, train = (run.team.kubectl("logs", of_stage(run.pods(), stage)["metadata"]["name"])
                      for stage in ("Prepare", "Train"))  # fmt: skip
    assert "reused" not in prepare
    assert "reused" in train
    assert Folder(s3, run).report()["training"]["steps"] == 5


@pytest.mark.parametrize(
    ("reason", "words"),
    [("DatasetNotFound", "nowhere/texts.jsonl"), ("DatasetInvalid", "spec.dataset.textField")],
)
def test_a_wrong_manifest_fails_while_it_is_prepared(team: Team, s3, reason: str, words: str) -> None:
    file = texts(s3, team)
    wrong: Json = {"textField": "body.text"}
    if reason == "DatasetNotFound":
        wrong = {"files": [file.replace("texts.jsonl", words)]}
    run = team.apply("wrong", small(file, dataset=wrong, resources={"gpusPerNode": 1, "gpuResourceName": GPU}))
    assert words in run.until(reason, seconds=120)["message"]
    assert stages(run) == ["Prepare"]
    assert len(run.jobs()) == 1


def test_a_run_goes_on_from_another_ones_model_and_says_so(trainers: Team, reference: Run, s3) -> None:
    # given two that start from the undisturbed run: one by its name, one by the address of its model
    quick = {"training": {"maxSteps": 5}, "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 1000}}
    onward = trainers.apply("onward", toy(**quick, resumeFrom={"name": reference.name}))
    reference.until("Completed", seconds=400)
    address = reference.status["results"]["modelURI"]
    spec = toy(**quick, preparation="Separate")
    staged = trainers.apply("staged", spec | {"model": {"name": address, "credentialsSecretRef": SECRET}})

    # then both begin where it ended
    for run in (onward, staged):
        run.until("Completed", seconds=180)
        results = run.status["results"]
        assert results["baselinePerplexity"] == reference.status["results"]["perplexity"]
    assert onward.status["provenance"]["resumedFrom"] == address
    assert Folder(s3, onward).report()["provenance"]["resumedFrom"] == address
    assert staged.status["model"] == address
    assert "resumedFrom" not in staged.status["provenance"]
