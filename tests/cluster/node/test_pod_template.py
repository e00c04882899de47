"""Everything that a manifest may say about its pod, on a node that enforces restricted Pod Security."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.node.node import Json, Team

CLASSES: list[Json] = [
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "lmft-test-low"}, "value": 7},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "lmft-test-runc"}, "handler": "runc"},
]
TEMPLATE: Json = {
    "labels": {"example.com/team": "a"},
    "annotations": {"example.com/note": "hello"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "lmft-test-low",
    "runtimeClassName": "lmft-test-runc",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "lmft-pull"}],
    "env": [{"name": "TZ", "value": "$(HOME) costs $5"}],
    "volumes": [{"name": "corpus", "claimName": "corpus", "mountPath": "/data", "readOnly": True}],
}
RESOURCES = {"cpu": "10m", "memory": "64Mi", "ephemeralStorage": "32Mi", "sharedMemory": "8Mi"}


@pytest.fixture
def furnished(team: Team) -> Iterator[Team]:
    """A namespace, and around it all that the manifest names."""
    volume: Json = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": team.namespace},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "hostPath": {"path": f"/tmp/{team.namespace}", "type": "DirectoryOrCreate"},
        },
    }
    claim: Json = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "corpus", "namespace": team.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "volumeName": team.namespace,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*CLASSES, volume, claim]})
    team.node.kubectl("apply", "-f", "-", text=objects)
    team.kubectl("create", "serviceaccount", "trainer")
    team.kubectl("create", "secret", "docker-registry", "lmft-pull", "--docker-server=registry.example.com",
                 "--docker-username=a", "--docker-password=b")  # fmt: skip
    yield team
    team.node.kubectl("delete", "-f", "-", "--wait=false", text=objects)


def test_a_pod_has_all_that_its_manifest_asks_for(furnished: Team) -> None:
    run = furnished.stub("furnished", podTemplate=TEMPLATE, resources=RESOURCES)
    run.until("Completed", seconds=60)
    [job], [pod] = run.jobs(), run.pods()

    # what only the metadata and the pod as a whole say
    for metadata in (job["metadata"], pod["metadata"]):
        assert TEMPLATE["labels"].items() <= metadata["labels"].items()
        assert TEMPLATE["annotations"].items() <= metadata["annotations"].items()
    assert job["metadata"]["ownerReferences"][0]["uid"] == run.body["metadata"]["uid"]
    spec = pod["spec"]
    for field in ("nodeSelector", "priorityClassName", "runtimeClassName", "serviceAccountName", "imagePullSecrets"):
        assert spec[field] == TEMPLATE[field], field
    assert TEMPLATE["tolerations"][0] in spec["tolerations"]
    assert spec["priority"] == 7

    # and its container
    [container] = spec["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert environment["TZ"] == "$$(HOME) costs $$5"
    assert container["image"] == furnished.node.images["stub"]
    assert container["resources"] == {
        "requests": {"cpu": "10m", "memory": "64Mi", "ephemeral-storage": "32Mi"},
        "limits": {"memory": "64Mi", "ephemeral-storage": "32Mi"},
    }
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/data"]["readOnly"] is True
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in spec["volumes"]}
    assert sizes[mounts["/dev/shm"]["name"]] == "8Mi"
    assert credentials(spec) == ["lmft-s3"]


def credentials(spec: Json) -> list[str]:
    """Secrets that are mounted as files; none may be in the environment."""
    [container] = spec["containers"]
    own = {"fieldRef"}  # the pod's UID
    references: list[Any] = [v for v in container["env"] if set(v.get("valueFrom", {})) - own]
    references += container.get("envFrom", [])
    assert references == []
    return [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
