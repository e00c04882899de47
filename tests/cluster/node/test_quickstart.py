"""The whole thread with the real images: apply, wait, get; checkpoints, model and report in a real S3 server."""

import json

import yaml
from cluster.node.node import ROOT, Run, Team
from cluster.node.release import BUCKET


def test_the_quickstart_ends_with_its_figures_in_the_status(team: Team, s3) -> None:
    # given the example as it stands
    manifest = ROOT / "examples/quickstart.yaml"
    team.kubectl("apply", "-f", str(manifest))
    run = Run(team, yaml.safe_load(manifest.read_text())["metadata"]["name"])

    # when it is waited for as the README says
    team.kubectl("wait", "--for=condition=Finished", f"lmft/{run.name}", "--timeout=20m")

    # then the status holds what came out
    status = run.status
    results = status["results"]
    assert float(results["perplexity"]) < float(results["baselinePerplexity"]) / 10
    assert all(sample["before"] and sample["after"] for sample in results["samples"])
    assert status["phase"] == "Succeeded"
    assert status["progress"]["display"] == "100%"
    assert status["provenance"]["datasetFingerprint"]
    assert status["attempts"][0]["reason"] == "Completed"
    evaluated = [entry["step"] for entry in status["evaluations"]]
    assert evaluated == sorted(set(evaluated))
    assert len(evaluated) > 1

    # and kubectl get shows it
    table = team.kubectl("get", "lmft").splitlines()
    assert table[0].split() == ["NAME", "MODEL", "PROGRESS", "ETA", "RESULT", "SUCCEEDED", "REASON", "AGE"]
    assert results["perplexity"] in table[1]

    # and storage holds checkpoint, model and report under the run's own folder
    prefix = results["modelURI"].removeprefix(f"s3://{BUCKET}/").removesuffix("model")
    keys = {item["Key"].removeprefix(prefix) for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]}
    assert {"model/model.safetensors", "model/README.md", "report.json", "report.html"} <= keys
    assert sum(key.startswith("checkpoints/") and key.endswith("MANIFEST.json") for key in keys) == 1
    report = json.loads(s3.get_object(Bucket=BUCKET, Key=f"{prefix}report.json")["Body"].read())
    assert f"{report['results']['perplexity']:.2f}" == results["perplexity"]
    assert run.events("Completed")[-1] == ("Completed", run.condition["message"])
