"""The custom resource on a real API server: it and our own validation say the same of every manifest.

Starts a control plane of its own: the definition is cluster-wide, and no cluster that somebody uses is touched.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from api.manifests import Case, cases
from cluster.eventually import eventually
from cluster.ports import own_control_plane
from docs.pages import blocks

from lmft_api.generate.crd import crd
from lmft_api.manifest.reader import read_documents
from lmft_api.wire.run_file import MUTABLE_FIELDS, MUTABLE_RESOURCES

ROOT = Path(__file__).parents[2]
CRD_FILE = ROOT / "charts/lmfinetune/files/crd.yaml"
CLUSTER = ROOT / "tests/cluster/local/cluster"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = Path(os.environ.get("LMFT_CLUSTER_BIN") or CACHE / "lmft-cluster")
KUBECTL = shutil.which("kubectl") or str(BIN / "kubectl")
NAME = "lmfinetunes.lmfinetune.dev"
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FIELDS = SCHEMA["properties"]["spec"]["properties"]

Json = dict[str, Any]
numbers = count(1)

BASE: Json = {
    "model": {"fromConfig": {"model_type": "gpt2", "n_embd": 8, "deep": {"er": [1, 2]}}, "tokenizer": {"name": "gpt2"}},
    "dataset": {"builtin": "PythonDocs"},
}
CHANGES: dict[str, Any] = {
    "task": "MaskedLM",
    "model": {"name": "gpt2", "fromConfig": None},
    "dataset": {"name": "rotten_tomatoes", "builtin": None},
    "training": {"epochs": 5},
    "evaluation": {"everySteps": 5},
    "checkpoint": {"keep": 5},
    "sample": {"prompts": ["Once"]},
    "output": {"uri": "s3://other"},
    "reportTo": {"tensorBoard": True},
    "hubTokenSecretRef": {"name": "hub"},
    "resources": {"cpu": "2"},
    "podTemplate": {"labels": {"team": "b"}},
    "preparation": "Inline",
    "resumeFrom": {"name": "other"},
    "suspend": True,
    **dict.fromkeys(("ttlSecondsAfterFinished", "activeDeadlineSeconds"), 500),
    "maxRetries": 5,
}
"""Another value for every field of the spec, as merge patch."""


@dataclass
class Answer:
    """What kubectl said."""

    ok: bool
    text: str


@dataclass
class Server:
    """An API server with our definition, and a namespace on it."""

    kubeconfig: str
    namespace: str = "default"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> Answer:
        """One call of kubectl."""
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", self.kubeconfig, "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr)

    def done(self, *arguments: str, stdin: str | None = None) -> str:
        """One call of kubectl that must work."""
        answer = self.kubectl(*arguments, stdin=stdin)
        assert answer.ok, answer.text
        return answer.text

    def run(self, spec: Json, attempts: int = 0, stage: str | None = None) -> str:
        """A new run; with ``attempts``, one that has started, of a stage, or as releases without stages wrote it."""
        name = f"run-{next(numbers)}"
        manifest = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": name}}
        self.done("create", "-f", "-", stdin=json.dumps(manifest | {"spec": spec}))
        staged = {"stage": stage} if stage else {}
        listed = [{"number": n + 1, "job": f"{name}-{n + 1}", **staged} for n in range(attempts)]
        started = {"status": {"attempts": listed}}
        if attempts:
            self.done("patch", "lmft", name, "--subresource=status", "--type=merge", "-p", json.dumps(started))
        return name

    def change(self, name: str, patch: Json) -> Answer:
        """A merge patch of the main resource."""
        return self.kubectl("patch", "lmft", name, "--type=merge", "-p", json.dumps(patch))

    def get(self, name: str) -> Json:
        """A run."""
        return dict(json.loads(self.done("get", "lmft", name, "-o", "json")))


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("control-plane")
    environment = os.environ | own_control_plane(folder)
    subprocess.run([CLUSTER, "--control-plane", "up", "--no-controllers"], env=environment, check=True)
    yield str(folder / "admin.conf")
    subprocess.run([CLUSTER, "--control-plane", "down"], env=environment, check=True)


@pytest.fixture(scope="module")
def server(kubeconfig: str) -> Server:
    server = Server(kubeconfig)
    server.done("apply", "--server-side", "-f", str(CRD_FILE))
    ready = ("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")
    eventually(lambda: server.kubectl(*ready).ok, "served")  # kubectl wait fails where there are no conditions yet
    server.done("create", "namespace", "crd")
    return replace(server, namespace="crd")


def messages(schema: Json) -> set[str]:
    """The messages of all rules in a schema."""
    own = {rule["message"] for rule in schema.get("x-kubernetes-validations", ())}
    inner = [*schema.get("properties", {}).values(), schema.get("items", {}), schema.get("additionalProperties", {})]
    return own.union(*(messages(entry) for entry in inner if entry))


def test_the_definition_on_the_server_is_the_one_in_the_tree(server: Server) -> None:
    there = json.loads(server.done("get", "crd", NAME, "-o", "json"))["spec"]["versions"][0]["schema"]
    wanted = yaml.safe_load(CRD_FILE.read_text())["spec"]["versions"][0]["schema"]

    assert there == wanted


@pytest.mark.parametrize("case", list(cases("accepted")), ids=str)
def test_the_server_accepts_what_validation_accepts(server: Server, case: Case) -> None:
    namespace = ["-n", "default"] if "namespace" in case.content["metadata"] else []

    answer = server.kubectl("create", "--dry-run=server", "-f", "-", *namespace, stdin=case.text)

    assert answer.ok, answer.text


@pytest.mark.parametrize("case", list(cases("rejected")), ids=str)
def test_the_server_rejects_what_validation_rejects_and_names_the_field(server: Server, case: Case) -> None:
    answer = server.kubectl("create", "--dry-run=server", "-f", "-", stdin=case.text)

    assert not answer.ok
    for path, message in case.because:
        if path not in ("apiVersion", "kind"):
            assert path in answer.text
        if any(ours.startswith(message) for ours in messages(SCHEMA)):
            assert message in answer.text


def test_scalars_read_as_kubectl_reads_them(server: Server, tmp_path: Path) -> None:
    """Every way to write a number, a boolean, a null, a time or a text, one by one."""
    file = tmp_path / "one.yaml"
    for scalar in (ROOT / "tests/api/manifests/scalars.txt").read_text().splitlines():
        file.write_text(
            f"apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {{name: a}}\nx: [{scalar}]\n"
        )

        theirs = server.kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", str(file))
        ours = next(read_documents(file))

        assert theirs.ok == (not ours.problems), scalar
        if theirs.ok:
            numbers_as_json: Callable[[str], Any] = lambda text: json.loads(text, parse_int=_int_or_float)  # noqa: E731
            wanted, found = (numbers_as_json(text)["x"] for text in (theirs.text, json.dumps(ours.content)))
            assert repr(found) == repr(wanted), scalar


def _int_or_float(text: str) -> int | float:
    """A JSON number beyond 64 bits is a float to Go."""
    return int(text) if -(2**63) <= int(text) < 2**63 else float(text)


def test_applying_twice_changes_nothing(server: Server) -> None:
    for case in cases("accepted"):
        if "generateName" in case.content["metadata"] or "null" in case.text:
            continue  # Server-side apply wants a name, and refuses the nulls that create and patch take for absent.
        name = case.content["metadata"]["name"]
        server.done("apply", "--server-side", "-f", "-", stdin=case.text)
        once = server.get(name)["metadata"]
        server.done("apply", "--server-side", "-f", "-", stdin=case.text)
        twice = server.get(name)["metadata"]
        server.done("delete", "lmft", name)

        assert (twice["resourceVersion"], twice["generation"]) == (once["resourceVersion"], 1), case


def test_status_cannot_be_written_through_the_main_resource(server: Server) -> None:
    name = server.run(BASE, attempts=1)
    before = server.get(name)

    answer = server.change(name, {"status": {"phase": "Succeeded", "attempts": []}})

    assert answer.ok
    assert server.get(name)["status"] == before["status"]
    assert server.get(name)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_status_of_a_new_run_is_dropped(server: Server) -> None:
    manifest = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": "forged"}}

    server.done("create", "-f", "-", stdin=json.dumps(manifest | {"spec": BASE, "status": {"phase": "Succeeded"}}))

    assert "status" not in server.get("forged")


def test_the_status_subresource_leaves_the_spec_alone(server: Server) -> None:
    name = server.run(BASE)

    server.done("patch", "lmft", name, "--subresource=status", "--type=merge", "-p", '{"spec": {"task": "MaskedLM"}}')

    assert server.get(name)["spec"]["task"] == "CausalLM"


def test_there_is_a_change_to_try_for_every_field() -> None:
    assert set(CHANGES) == set(FIELDS)


@pytest.mark.parametrize("field", list(FIELDS))
def test_before_the_first_attempt_every_field_may_change(server: Server, field: str) -> None:
    name = server.run(BASE)

    answer = server.change(name, {"spec": {field: CHANGES[field]}})

    assert answer.ok, answer.text


@pytest.mark.parametrize("field", list(FIELDS))
def test_while_only_preparations_have_run_every_field_may_change(server: Server, field: str) -> None:
    name = server.run(BASE, attempts=2, stage="Prepare")

    answer = server.change(name, {"spec": {field: CHANGES[field]}})

    assert answer.ok, answer.text


@pytest.mark.parametrize("stage", ["Train", "All"])
def test_a_later_attempt_that_trains_fixes_the_spec(server: Server, stage: str) -> None:
    name = server.run(BASE, attempts=1, stage="Prepare")
    attempts = [{"number": 1, "job": "a", "stage": "Prepare"}, {"number": 2, "job": "b", "stage": stage}]
    body = json.dumps({"status": {"attempts": attempts}})
    server.done("patch", "lmft", name, "--subresource=status", "--type=merge", "-p", body)

    answer = server.change(name, {"spec": {"task": CHANGES["task"]}})

    assert "spec.task cannot change once training has started" in answer.text


@pytest.mark.parametrize("field", list(FIELDS))
def test_after_the_first_attempt_only_the_fields_of_the_runs_life_may_change(server: Server, field: str) -> None:
    name = server.run(BASE, attempts=1)

    answer = server.change(name, {"spec": {field: CHANGES[field]}})

    assert answer.ok == (field in MUTABLE_FIELDS), answer.text
    if not answer.ok:
        assert re.search(rf"spec\.{field}(\.cpu)? cannot change once training has started; make a new", answer.text)


@pytest.mark.parametrize("field", sorted(set(FIELDS) - {*MUTABLE_FIELDS, "model", "dataset", "task"}))
def test_after_the_first_attempt_a_field_cannot_be_taken_away(server: Server, field: str) -> None:
    name = server.run(BASE | {field: CHANGES[field]}, attempts=1)

    assert re.search(rf"spec\.{field}(\.cpu)? cannot change", server.change(name, {"spec": {field: None}}).text)


RESOURCES: Json = {
    "nodes": (2, 3), "gpusPerNode": (2, 1), "elastic": ({"minNodes": 1}, {"waitSeconds": 60}),
    "gpuResourceName": ("nvidia.com/gpu", "amd.com/gpu"), "gpuMemory": ("80Gi", "40Gi"), "cpu": ("2", "4"),
    "memory": ("4Gi", "8Gi"), "ephemeralStorage": ("8Gi", "9Gi"), "sharedMemory": ("2Gi", "1Gi"),
}  # fmt: skip


@pytest.mark.parametrize("field", list(RESOURCES))
def test_after_the_first_attempt_only_the_number_of_devices_may_change(server: Server, field: str) -> None:
    assert set(RESOURCES) == set(FIELDS["resources"]["properties"])
    name = server.run(BASE | {"resources": {name: given for name, (given, _) in RESOURCES.items()}}, attempts=1)
    mutable = field in MUTABLE_RESOURCES

    changed = server.change(name, {"spec": {"resources": {field: RESOURCES[field][1]}}})

    assert changed.ok == mutable, changed.text
    if not mutable:
        assert f"spec.resources.{field} cannot change once training has started" in changed.text
        assert (
            f"spec.resources.{field} cannot change" in server.change(name, {"spec": {"resources": {field: None}}}).text
        )


def test_devices_may_be_asked_for_where_nothing_was_said_of_resources(server: Server) -> None:
    name = server.run(BASE, attempts=1)

    for resources in ({}, {"nodes": 2, "gpusPerNode": 0}, None):
        assert server.change(name, {"spec": {"resources": resources}}).ok
    assert "spec.resources.cpu cannot change" in server.change(name, {"spec": {"resources": {"cpu": "2"}}}).text


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0), (None, 1), (1, None), (8, 0)])
def test_a_run_stays_with_gpus_or_without(server: Server, before: int | None, after: int | None) -> None:
    name = server.run(BASE | {"resources": {"gpusPerNode": before} if before is not None else {}}, attempts=1)

    answer = server.change(name, {"spec": {"resources": {"gpusPerNode": after}}})

    assert "spec.resources.gpusPerNode cannot change between 0 and more once training has started" in answer.text


@pytest.mark.parametrize(
    "config",
    [{"n_embd": 16}, {"n_layer": 1}, {"n_embd": None}, {"deep": {"er": [1, 3]}}, {"deep": {"more": 1}}],
    ids=str,
)
def test_after_the_first_attempt_the_models_own_config_is_fixed_to_its_depths(server: Server, config: Json) -> None:
    name = server.run(BASE, attempts=1)

    answer = server.change(name, {"spec": {"model": {"fromConfig": config}}})

    assert not answer.ok
    assert "spec.model cannot change" in answer.text


def test_after_the_first_attempt_the_same_manifest_still_applies_and_metadata_may_change(server: Server) -> None:
    name = server.run(BASE, attempts=1)

    assert server.change(name, {"spec": BASE}).ok
    assert server.change(name, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}).ok


@pytest.mark.parametrize("path", ["", *(f".{name}" for name in FIELDS)])
def test_explain_reads_like_documentation(server: Server, path: str) -> None:
    text = server.done("explain", f"lmft.spec{path}")
    schema = SCHEMA["properties"]["spec"] if not path else FIELDS[path[1:]]

    flowing = " ".join(text.split())
    assert " ".join(schema["description"].split()) in flowing
    for name, entry in schema.get("properties", {}).items():
        assert f" {name} <" in flowing
        assert " ".join(entry["description"].split()) in flowing


def test_the_table_has_the_columns_people_read(server: Server) -> None:
    server.run(BASE)

    head = server.done("get", "lmft").splitlines()[0].split()

    assert head == ["NAME", "MODEL", "PROGRESS", "ETA", "RESULT", "SUCCEEDED", "REASON", "AGE"]


def test_the_readmes_table_is_what_kubectl_prints(server: Server) -> None:
    # given runs with what the README's table shows of them
    [block] = [block for block in blocks("console unrun") if block.text.startswith("$ kubectl get lmft")]
    head, *lines = block.text.splitlines()[1:]
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    rows = [
        dict(zip(head.split(), (line[a:b].strip() for a, b in pairwise([*starts, None])), strict=True))
        for line in lines
    ]
    server.done("create", "namespace", "readme")
    namespace = replace(server, namespace="readme")
    for row in rows:
        manifest = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": row["NAME"]}}
        namespace.done("create", "-f", "-", stdin=json.dumps(manifest | {"spec": BASE}))
        status = {
            "model": row["MODEL"],
            "progress": {"display": row["PROGRESS"] or None, "eta": row["ETA"] or None},
            "results": {"display": row["RESULT"] or None},
            "conditions": [
                {"type": "Succeeded", "status": row["SUCCEEDED"], "reason": row["REASON"], "message": ""}
                | {"lastTransitionTime": "2026-01-01T00:00:00Z"}
            ],
        }
        namespace.done(
            "patch", "lmft", row["NAME"], "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
        )

    # when kubectl prints them, then it is the table, but for their age
    printed = namespace.done("get", "lmft").splitlines()
    assert [line[: starts[-1]] for line in printed] == [line[: starts[-1]] for line in (head, *lines)]
