"""What the child that reads a foreign model can open in a pod of a real node: its folder, and no secret of the pod."""

import json
from pathlib import Path

from cluster.eventually import eventually
from cluster.node.node import Json, Team

from lmft_job.process import landlock

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SECRET = "/etc/lmft/secrets/output/AWS_SECRET_ACCESS_KEY"
PLACES = [TOKEN, SECRET, "/etc/passwd", "/proc/1/environ", "/proc/self/environ", "/tmp/beside"]
LOOK = """
import json, os, sys
from pathlib import Path
from lmft_job.process import landlock
from lmft_job.process.confined import run_confined

places = json.loads(sys.argv[1])
Path("/tmp/beside").write_text("beside")
source, results = Path("/tmp/source"), Path("/tmp/results")
source.mkdir(); results.mkdir()
(source / "mine").write_text("mine")

def opened(path):
    try:
        return "read" if Path(path).read_bytes() else "empty"
    except OSError as error:
        return type(error).__name__

def look():
    (results / "seen.json").write_text(json.dumps({place: opened(place) for place in [*places, str(source / "mine")]}))

outside = {place: opened(place) for place in places}
confined = run_confined(look, source, results)
seen = json.loads((results / "seen.json").read_text())
print(json.dumps({"version": landlock.version(), "confined": confined, "outside": outside, "inside": seen}))
"""


def test_the_child_that_reads_a_model_opens_no_secret_of_its_pod(team: Team) -> None:
    # given a pod like the job's, of its image, with a service account's token and the storage's keys in it
    run = team.stub("pattern", {"seconds": 1})
    run.until("Completed")
    [pattern] = run.pods()
    body: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "look", "namespace": team.namespace},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": pattern["spec"]["securityContext"],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "keys", "secret": {"secretName": "lmft-s3"}},
            ],
            "containers": [
                {
                    "name": "job",
                    "image": team.node.images["job"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-P", "-c", LOOK, json.dumps(PLACES)],
                    "securityContext": pattern["spec"]["containers"][0]["securityContext"],
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "keys", "mountPath": str(Path(SECRET).parent), "readOnly": True},
                    ],
                }
            ],
        },
    }

    # when the job's own code looks, and then its confined child
    team.kubectl("apply", "-f", "-", text=json.dumps(body))

    def said() -> Json | None:
        if team.read("pod", "look").get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            return None
        log = team.kubectl("logs", "look")
        assert log.strip().startswith("{"), log
        return dict(json.loads(log.strip().splitlines()[-1]))

    found = eventually(said, "the pod looks around", 120)

    # then the secrets are there for the job, and not for the child
    assert {found["outside"][place] for place in (TOKEN, SECRET)} == {"read"}
    assert found["confined"] == bool(found["version"])
    assert found["inside"].pop("/tmp/source/mine") == "read"
    if team.node.local:
        assert bool(landlock.version()) == found["confined"], "the container hides what the kernel has"
    if found["confined"]:
        assert set(found["inside"].values()) == {"PermissionError"}, found["inside"]
    else:
        # Without it the allow-list of settings alone protects, which the job's log says; see docs/security.md.
        assert found["inside"][TOKEN] == "read"
