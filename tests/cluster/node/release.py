"""The chart, installed on the node with our images, and the S3 server as a client outside the cluster sees it."""

import json
import os
from typing import Any

import boto3
from botocore.config import Config
from cluster.node.node import ROOT, Node

BUCKET = "models"
DOCUMENTATION = "https://docs.example.com/troubleshooting"


def s3_client(node: Node, **options: Any) -> Any:
    """A client of the S3 server; ``options`` are botocore's."""
    return boto3.client(
        "s3",
        endpoint_url=os.environ.get("LMFT_E2E_S3_OUTSIDE", node.s3_endpoint),
        aws_access_key_id=node.s3_key,
        aws_secret_access_key=node.s3_secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, **options),
    )


def make_bucket(client: Any) -> None:
    """The bucket of all runs, unless it is there."""
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def install(node: Node, **changes: Any) -> None:
    """Install the chart, or bring it up to date; the tests' own images are allowed beside the job's.

    Args:
        node: the cluster.
        changes: values beside those of the tests; what is a mapping there too is merged with it.
    """

    def image(reference: str) -> Any:
        repository, _, tag = reference.rpartition(":")
        return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}

    values: dict[str, Any] = {
        "image": image(node.images["operator"]),
        "job": {
            "image": image(node.images["job"]),
            # The control plane shares the cores: two threads that wait for each other by spinning are slower than one.
            "env": {"OMP_NUM_THREADS": "1"},
            "terminationGracePeriodSeconds": 20,
            # Several runs at a time share the node of a test, which may have two cores.
            "resources": {"cpu": "50m", "memory": "256Mi", "ephemeralStorage": "64Mi"},
        },
        "defaults": {
            "output": {
                "uri": f"s3://{BUCKET}",
                "endpointURL": node.s3_endpoint,
                "region": "us-east-1",
                "credentialsSecretName": "lmft-s3",
            }
        },
        "policy": {
            "images": [node.images["stub"], node.images["trainer"], "localhost/absent:*"],
            "serviceAccounts": ["default", "trainer"],
            "volumes": ["corpus"],
            "maxNodes": 4,
            "envNames": ["TZ", "AWS_MAX_ATTEMPTS"],
            "labelKeys": ["kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class", "example.com/*"],
            "annotationKeys": ["example.com/*"],
            "gpuResourceNames": ["example.com/*"],
            # Each namespace has its own folder of the bucket, and all may look into one that is empty.
            "sources": {"uris": ["s3://*", "file://*", f"s3://{BUCKET}/nowhere*"]},
        },
        "retries": {"initialSeconds": 1, "maxSeconds": 30, "podEndMarginSeconds": 5, "growSeconds": 1},
        "documentationURL": DOCUMENTATION,
    }
    for name, value in changes.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    node.run(
        "helm", "upgrade", "--install", "lmfinetune", str(ROOT / "charts/lmfinetune"), "-n", "lmft-system",
        "--create-namespace", "-f", "-", "--wait", "--timeout", "2m", text=json.dumps(values),
    )  # fmt: skip
