"""Runs that really train: a toy model, long enough to be interrupted, and what it leaves in storage."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cluster.eventually import eventually
from cluster.node.node import Json, Run, Team
from cluster.node.release import BUCKET

from lmft_api.wire.layout import run_folder

SECRET = {"name": "lmft-s3"}
TEXTS = [
    f"The {thing} of {place} is {state} in the {season}, and the {other} of {place} is {mood}."
    for thing, other in (("river", "hill"), ("house", "garden"), ("ship", "harbour"), ("tower", "bridge"))
    for place in ("Ghent", "Turin", "Porto", "Lund", "Graz")
    for state, mood in (("cold", "quiet"), ("wide", "green"), ("old", "bright"))
    for season in ("spring", "winter", "summer")
]


STEPS = 500
SURE = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0)
"""Without dropout, whose masks no two numbers of processes draw alike: the figures are the same only then."""
PAIR: Json = {"resources": {"nodes": 2}, "training": {"batchSize": 8}}
"""Two pods; the rows of an optimiser step are those of one process."""


def toy(steps: int = STEPS, **sections: Any) -> Json:
    """A spec of a run that trains for some ten seconds; sections are merged into it."""
    spec: Json = {
        "model": {
            "fromConfig": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": 64},
            "tokenizer": {"trainVocabSize": 512},
        },
        "dataset": {"builtin": "PythonDocs", "textField": "answers.text", "testPercent": 5, "blockSize": 64},
        "training": {"maxSteps": steps, "learningRate": "2e-3", "perDeviceBatchSize": 8},
        "evaluation": {"everySteps": 150},
        "checkpoint": {"everySteps": 110},
        "sample": {"prompts": ["The import statement"], "maxNewTokens": 8},
    }
    for name, section in sections.items():
        spec[name] = {**spec.get(name, {}), **section} if isinstance(section, dict) else section
    return spec


def sure(steps: int = STEPS, **sections: Any) -> Json:
    """A run of the toy model without dropout."""
    spec = toy(steps, **sections)
    spec["model"]["fromConfig"] |= SURE
    return spec


def texts(s3: Any, team: Team) -> str:
    """Address of a small file of JSON lines in the team's storage."""
    key = f"{team.namespace}/texts.jsonl"
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    s3.put_object(Bucket=BUCKET, Key=key, Body=lines.encode())
    return f"s3://{BUCKET}/{key}"


def small(file: str, steps: int = 5, **sections: Any) -> Json:
    """A spec of a run that is over as soon as it has started, on a file of :func:`texts`."""
    dataset = {"files": [file], "format": "json", "blockSize": 16, "credentialsSecretRef": SECRET}
    spec = toy(steps, **{"checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 1000}, **sections})
    return spec | {"dataset": {**dataset, **sections.get("dataset", {})}}


@dataclass
class Folder:
    """What a run has in storage."""

    s3: Any
    run: Run

    @cached_property
    def prefix(self) -> str:
        """Key of the run's folder in the bucket; to be asked for while there is the run."""
        uid = self.run.body["metadata"]["uid"]
        return run_folder("", self.run.team.namespace, self.run.name, uid).lstrip("/") + "/"

    def read(self, key: str) -> bytes | None:
        """An object; None when it does not exist."""
        try:
            found: bytes = self.s3.get_object(Bucket=BUCKET, Key=self.prefix + key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        return found

    def report(self) -> Json:
        """The report of a run that is done."""
        found: Json = json.loads(self.read("report.json") or b"")
        return found

    def checkpoints(self) -> list[tuple[int, int]]:
        """Attempt and step of every complete checkpoint."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}checkpoints/").get("Contents", [])
        parts = [item["Key"].split("/") for item in listed if item["Key"].endswith("/MANIFEST.json")]
        return sorted((int(p[-3].split("-")[1]), int(p[-2].removeprefix("step-"))) for p in parts)

    def checkpoint(self, attempt: int = 1, seconds: float = 180) -> int:
        """Step of the newest complete checkpoint of an attempt, once there is one."""
        found = eventually(
            lambda: [step for number, step in self.checkpoints() if number == attempt],
            f"a checkpoint of attempt {attempt} of {self.run.name}",
            seconds,
        )
        return found[-1]

    def known_step(self, attempt: int = 1) -> int:
        """The step that an attempt noted last, which a checkpoint may be behind."""
        notes = [self.read(key) for key in self._notes(attempt)]
        return max((int(json.loads(note)["step"]) for note in notes if note), default=0)

    def has_begun(self, attempt: int) -> bool:
        """Whether a pod of an attempt has begun."""
        return bool(self._notes(attempt))

    def _notes(self, attempt: int) -> list[str]:
        prefix = f"{self.prefix}attempts/attempt-{attempt:04d}"
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"].removeprefix(self.prefix) for item in found]

    def newest(self, attempt: int) -> int:
        """The step that an attempt is known to have done last, by its note or by a checkpoint."""
        return max([self.known_step(attempt), *(step for number, step in self.checkpoints() if number == attempt)])

    def weights(self) -> str:
        """SHA-256 of the trained model."""
        data = self.read("model/model.safetensors")
        assert data is not None, f"{self.run.name} left no model"
        return hashlib.sha256(data).hexdigest()


def assert_same(run: Run, reference: Run, s3: Any) -> None:
    """A run ended with the figures, the samples and the weights of another one, to the last bit."""
    reference.until("Completed", seconds=400)
    mine, other = run.status["results"], reference.status["results"]
    different = {"modelURI", "reportURI"}
    assert {k: v for k, v in mine.items() if k not in different} == {
        k: v for k, v in other.items() if k not in different
    }
    assert run.status["evaluations"] == reference.status["evaluations"]
    assert Folder(s3, run).weights() == Folder(s3, reference).weights()


def reasons(run: Run) -> list[str]:
    """How the attempts ended, in their order; an open one has no reason."""
    return [attempt.get("reason", "") for attempt in run.status.get("attempts", [])]
