"""Runs as storage shows them: complete checkpoints, whether they are what they say, and what came out."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from cluster.chaos.history import Checkpoint
from cluster.node.release import BUCKET

MANIFEST = "MANIFEST.json"
LOSSES = "lmft_losses.f64"
AWAY = (BotoCoreError, ClientError)
"""What the client raises while the server is stopped."""
_FOLDER = re.compile(r"(checkpoints/attempt-(\d+)(?:-\w+)?/step-(\d+)/)(.+)")


@dataclass(frozen=True)
class Folder:
    """One run's folder.

    Attributes:
        client: of S3.
        prefix: key of the folder, with a slash at its end.
    """

    client: Any
    prefix: str

    def keys(self) -> dict[str, int]:
        """Size of every object, by its key below the folder."""
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self.prefix):
            found |= {item["Key"].removeprefix(self.prefix): item["Size"] for item in page.get("Contents", [])}
        return found

    def read(self, key: str) -> bytes:
        """An object."""
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=self.prefix + key)["Body"].read()
        return data

    def damage(self, checkpoint: Checkpoint) -> str | None:
        """What is wrong with a complete checkpoint; None when each file has its manifest's size and SHA-256.

        It may be pruned meanwhile, manifest first; then there is nothing to say either.
        """
        found = [match for key in self.keys() if (match := _manifest(key)) and _place(match) == checkpoint]
        return next((what for match in found if (what := self._damage(match[1]))), None)

    def _damage(self, folder: str) -> str | None:
        try:
            manifest = json.loads(self.read(folder + MANIFEST))
            for name, entry in manifest["files"].items():
                data = self.read(f"{folder}{manifest['folder']}/{name}")
                if (len(data), hashlib.sha256(data).hexdigest()) != (entry["size"], entry["sha256"]):
                    return f"{name} is not what the manifest says"
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            if folder + MANIFEST in self.keys():
                return f"a file that the manifest names is missing: {error}"
        return None

    def outcome(self) -> dict[str, Any]:
        """What must be equal, to the bit, whatever happened on the way."""
        [losses] = [key for key in self.keys() if key.endswith("/" + LOSSES)]
        report = json.loads(self.read("report.json"))
        return {
            "weights": hashlib.sha256(self.read("model/model.safetensors")).hexdigest(),
            "losses": hashlib.sha256(self.read(losses)).hexdigest(),
            "results": {key: value for key, value in report["results"].items() if not key.endswith("URI")},
            "evaluations": report["evaluations"],
        }


def complete_checkpoints(keys: Mapping[str, int]) -> frozenset[Checkpoint]:
    """Those that have a manifest."""
    return frozenset(_place(match) for key in keys if (match := _manifest(key)))


def _manifest(key: str) -> re.Match[str] | None:
    match = _FOLDER.fullmatch(key)
    return match if match and match[4] == MANIFEST else None


def _place(match: re.Match[str]) -> Checkpoint:
    return int(match[2]), int(match[3])
