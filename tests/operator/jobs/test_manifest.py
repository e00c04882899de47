"""The Job of an attempt against golden files: ``LMFT_UPDATE_GOLDEN=1 pytest`` writes them anew."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.run_file import RUN_ANNOTATION, RunFile, Stage
from lmft_operator.domain.facts import Key, RunFacts
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest, peers
from lmft_operator.jobs.manifest import job_name
from lmft_operator.settings import OperatorSettings, parse

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = RunFacts(Key("team-a", "eli5"), "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "1", 1, 0.0, False, "", "")
PLAIN: dict[str, Any] = {"model": {"name": "distilbert/distilgpt2"}, "dataset": {"name": "dany0407/eli5_category"}}
FULL: dict[str, Any] = PLAIN | {
    "model": {"name": "distilbert/distilgpt2", "credentialsSecretRef": {"name": "lmft-model"}},
    "dataset": {"files": ["s3://data/*.jsonl"], "format": "json", "credentialsSecretRef": {"name": "lmft-data"}},
    "output": {"uri": "s3://models/a", "credentialsSecretRef": {"name": "lmft-out"}},
    "hubTokenSecretRef": {"name": "lmft-hub", "key": "hf"},
    "resources": {
        "gpusPerNode": 1,
        "gpuResourceName": "amd.com/gpu",
        "cpu": "4",
        "memory": "16Gi",
        "ephemeralStorage": "50Gi",
        "sharedMemory": "2Gi",
    },
    "podTemplate": {
        "labels": {"team": "a", "kueue.x-k8s.io/queue-name": "gpus"},
        "annotations": {"example.com/note": "hello"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "low",
        "runtimeClassName": "nvidia",
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "lmft-pull"}],
        "image": "registry.example.com/job:2",
        "env": [{"name": "TZ", "value": "$(HOME) costs $5"}],
        "volumes": [{"name": "data", "claimName": "corpus", "mountPath": "/data", "readOnly": True}],
    },
}
PLATFORM = """
defaults: {outputUri: s3://models/all, endpointURL: http://s3:9000, region: eu-1, credentialsSecretName: lmft-s3}
job:
  image: registry.example.com/job:1
  env: {HF_ENDPOINT: "http://hub:8080"}
  caBundleConfigMap: company-ca
  cacheVolumeClaim: cache
  resources: {cpu: "1", memory: 2Gi, ephemeralStorage: 5Gi}
  labels: {cost-centre: "7"}
  nodeSelector: {pool: training}
  gpuTolerations: [{key: nvidia.com/gpu, operator: Exists}]
  terminationGracePeriodSeconds: 60
progress: {url: "https://progress.lmft-system.svc:8443"}
"""
CASES = {
    "plain": (PLAIN, "{}", Plan("eli5-1", 1, Stage.ALL, 0), None),
    "full": (FULL, "{}", Plan("eli5-2", 2, Stage.TRAIN, 1, "s3://models/base/model"), None),
    "several": (
        PLAIN | {"resources": {"nodes": 4, "gpusPerNode": 2, "elastic": {}}},
        "{}",
        Plan("eli5-2", 2, Stage.TRAIN, 2, nodes=3),
        None,
    ),
    "platform": (PLAIN, PLATFORM, Plan("eli5-1-prepare", 1, Stage.PREPARE, 0), "-----BEGIN CERTIFICATE-----\n"),
}


def build(spec: dict[str, Any], settings: OperatorSettings, plan: Plan, ca: str | None = None) -> dict[str, Any]:
    filled = manifest.with_defaults(parse_spec(spec), settings)
    return manifest.build(plan, RUN, filled, settings, settings.policy.for_namespace("team-a"), ca)


@pytest.mark.parametrize("name", CASES)
def test_the_job_of_an_attempt_is_as_agreed(name):
    spec, platform, plan, ca = CASES[name]
    job = build(spec, parse(platform), plan, ca)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("LMFT_UPDATE_GOLDEN"):
        file.write_text(yaml.safe_dump(json.loads(json.dumps(job)), sort_keys=False, width=120))
    assert job == yaml.safe_load(file.read_text())


def test_the_pods_of_several_nodes_meet_at_a_headless_service_that_is_the_runs_own():
    spec, platform, plan, ca = CASES["several"]
    job = build(spec, parse(platform), plan, ca)

    service = peers.service(job)

    metadata, container = service["metadata"], job["spec"]["template"]["spec"]["containers"][0]
    assert metadata["name"] == job["spec"]["template"]["spec"]["subdomain"] == "lmft-0f1e2d3c-2"
    assert metadata["ownerReferences"] == job["metadata"]["ownerReferences"]
    assert service["spec"] == {
        "clusterIP": "None",
        "selector": {"lmfinetune.dev/run-uid": RUN.uid, "lmfinetune.dev/attempt": "2"},
        "publishNotReadyAddresses": True,
        "ports": [
            {"name": "rendezvous", "port": 29500, "protocol": "TCP"},
            {"name": "heartbeat", "port": 29501, "protocol": "TCP"},
            {"name": "probe", "port": 29502, "protocol": "TCP"},
        ],
    }
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    policy, pods = peers.policy(job), {"podSelector": {"matchLabels": service["spec"]["selector"]}}
    assert policy["metadata"] == metadata
    assert policy["spec"] == pods | {"policyTypes": ["Ingress"], "ingress": [{"from": [pods]}]}
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (env["MASTER_ADDR"], env["MASTER_PORT"], env["LMFT_NODES"]) == ("eli5-2-0.lmft-0f1e2d3c-2", "29500", "3")
    assert {name: value for name, value in env.items() if name.startswith("PET_") and value} == {
        "PET_NNODES": "3", "PET_NPROC_PER_NODE": "2", "PET_MASTER_ADDR": "eli5-2-0.lmft-0f1e2d3c-2",
        "PET_MASTER_PORT": "29500",
    }  # fmt: skip
    (index,) = (variable["valueFrom"] for variable in container["env"] if variable["name"] == "PET_NODE_RANK")
    assert index == {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    run = RunFile.model_validate_json(job["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION])
    assert (run.spec.resources.nodes, run.spec.resources.gpus_per_node) == (3, 2), "of this attempt"


@pytest.mark.parametrize(
    ("stage", "gpus", "variables"),
    [
        (Stage.TRAIN, 8, {"NNODES": "1", "NPROC_PER_NODE": "8", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}),
        (Stage.TRAIN, 1, None),
        (Stage.PREPARE, 0, None),
    ],
)
def test_a_bare_torchrun_starts_a_process_for_each_gpu_of_a_pod(stage, gpus, variables):
    job = build(PLAIN, parse("{}"), Plan("a-1", 1, stage, gpus))
    env = {v["name"]: v.get("value") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    found = {name.removeprefix("PET_"): value for name, value in env.items() if name.startswith("PET_")}
    assert found == ({} if variables is None else variables | {"MASTER_PORT": "29500"})


def test_a_manifest_cannot_change_where_the_pods_meet():
    env = [{"name": name, "value": "evil"} for name in ("MASTER_ADDR", "MASTER_PORT", "LMFT_NODES", "PET_NODE_RANK")]
    spec = PLAIN | {"podTemplate": {"env": env}}
    job = build(spec, parse("policy: {envNames: ['*']}"), Plan("a-1", 1, Stage.TRAIN, 0, nodes=2))
    assert "evil" not in [v.get("value") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]]


@pytest.mark.parametrize("nodes", [2, 10, 11, 1000, 1024])
@pytest.mark.parametrize("name", ["a", "a" * 58, "a" * 61, "a" * 63, "a.b", "a" * 250])
def test_the_host_names_of_all_pods_fit(name, nodes):
    for uid in ("", RUN.uid):
        found = job_name(name, 12, Stage.TRAIN, uid, nodes)
        assert len(f"{found}-{nodes - 1}") <= 63
        assert found == job_name(name, 12, Stage.TRAIN, uid, nodes)


def test_the_run_file_in_the_annotation_reads_back():
    spec, platform, plan, ca = CASES["platform"]
    job = build(spec, parse(platform), plan, ca)
    run = RunFile.model_validate_json(job["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION])
    assert (run.name, run.namespace, run.attempt, run.stage) == ("eli5", "team-a", 1, Stage.PREPARE)
    assert run.spec.output.uri == "s3://models/all"
    assert run.spec.output.credentials_secret_ref.name == "lmft-s3"


@pytest.mark.parametrize("name", CASES)
def test_every_pod_meets_the_restricted_standard(name):
    spec, platform, plan, ca = CASES[name]
    pod = build(spec, parse(platform), plan, ca)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "secret", "configMap", "downwardAPI", "projected", "persistentVolumeClaim"}


def test_credentials_never_enter_the_environment():
    job = build(FULL, parse("{}"), CASES["full"][2])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    [pod_uid] = [variable for variable in container["env"] if set(variable) != {"name", "value"}]
    assert pod_uid == {"name": "LMFT_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    assert "envFrom" not in container


def test_the_keys_of_a_tracker_are_files_of_the_pod_that_trains_alone():
    mlflow = {"uri": "https://m.example", "credentialsSecretRef": {"name": "lmft-mlflow"}}
    wandb = {"credentialsSecretRef": {"name": "lmft-wandb"}}
    mounted = {}
    for stage in Stage:
        job = build(PLAIN | {"reportTo": {"mlflow": mlflow, "wandb": wandb}}, parse("{}"), Plan("a-1", 1, stage, 0))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        mounted[stage] = [m["mountPath"] for m in container["volumeMounts"] if "secret" in m["name"]]
    both = ["/etc/lmft/secrets/mlflow", "/etc/lmft/secrets/wandb"]
    assert mounted == {stage: [] if stage == Stage.PREPARE else both for stage in Stage}


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("{}", "true"),
        ("job: {nodeCloudRole: true}", "false"),
        ("job: {env: {AWS_EC2_METADATA_DISABLED: 'false'}}", "false"),
    ],
)
def test_the_nodes_cloud_role_is_the_platforms_to_lend_and_not_the_manifests_to_take(platform, wanted):
    wish = {"podTemplate": {"env": [{"name": "AWS_EC2_METADATA_DISABLED", "value": "no"}]}}
    job = build(PLAIN | wish, parse(platform), CASES["full"][2])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = [variable["value"] for variable in container["env"] if variable["name"] == "AWS_EC2_METADATA_DISABLED"]
    assert found == [wanted]


def test_a_value_with_a_dollar_sign_is_not_expanded():
    job = build(FULL, parse("{}"), CASES["full"][2])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "TZ", "value": "$$(HOME) costs $$5"} in container["env"]


def test_volumes_of_long_names_that_begin_alike_stay_two():
    names = [f"{'v' * 58}-{end}" for end in ("abcd", "efgh")]
    volumes = [{"name": name, "claimName": name, "mountPath": f"/{name}"} for name in names]
    job = build(PLAIN | {"podTemplate": {"volumes": volumes}}, parse("{}"), CASES["plain"][2])
    pod = job["spec"]["template"]["spec"]
    given = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert list(given.values()) == names
    assert all(len(name) <= 63 and not name.endswith("-") for name in given)
    mounted = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] in given}
    assert mounted == {name: f"/{claim}" for name, claim in given.items()}


def test_a_queued_job_is_created_suspended_and_others_are_not():
    assert build(FULL, parse("{}"), CASES["full"][2])["spec"]["suspend"] is True
    assert "suspend" not in build(PLAIN, parse("{}"), CASES["plain"][2])["spec"]


def test_what_a_manifest_says_does_not_change_what_is_ours():
    spec = PLAIN | {"podTemplate": {"nodeSelector": {"pool": "mine"}, "labels": {"cost-centre": "8"}}}
    job = build(spec, parse(PLATFORM), Plan("eli5-1", 1, Stage.ALL, 0))
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "training"}
    assert job["metadata"]["labels"]["cost-centre"] == "7"
    assert job["metadata"]["labels"]["lmfinetune.dev/run-uid"] == RUN.uid


def test_the_image_may_be_taken_from_the_manifest_only_by_name():
    assert (
        build(PLAIN, parse("job: {image: ours}"), CASES["plain"][2])["spec"]["template"]["spec"]["containers"][0][
            "image"
        ]
        == "ours"
    )


def test_tmp_and_cache_are_bounded_by_the_maximum_and_a_shared_cache_is_not():
    bounded = build(PLAIN, parse("policy: {maxEphemeralStorage: 9Gi}"), CASES["plain"][2])
    shared = build(PLAIN, parse("{policy: {maxEphemeralStorage: 9Gi}, job: {cacheVolumeClaim: c}}"), CASES["plain"][2])

    def volumes(job):
        return {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}

    for name in ("lmft-tmp", "lmft-cache"):
        assert volumes(bounded)[name]["emptyDir"] == {"sizeLimit": "9Gi"}
    assert volumes(shared)["lmft-cache"] == {"name": "lmft-cache", "persistentVolumeClaim": {"claimName": "c"}}


def test_without_a_user_id_the_platform_chooses_one_that_is_not_root():
    pod = build(PLAIN, parse("job: {userID: null}"), CASES["plain"][2])["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


NAMES = [
    ("eli5", 1, Stage.ALL, "eli5-1"),
    ("eli5", 12, Stage.TRAIN, "eli5-12"),
    ("eli5", 1, Stage.PREPARE, "eli5-1-prepare"),
]


@pytest.mark.parametrize(("name", "attempt", "stage", "job"), NAMES)
def test_jobs_are_named_after_run_and_attempt(name, attempt, stage, job):
    assert job_name(name, attempt, stage) == job


@pytest.mark.parametrize("name", ["a" * 253, "a.b" * 84, "v1.2-model", "x" * 61])
def test_long_and_dotted_names_give_valid_distinct_job_names(name):
    first, second = job_name(name, 1, Stage.ALL), job_name(name[:-1] + "z", 1, Stage.ALL)
    assert len(first) <= 63
    assert "." not in first
    assert first.endswith("-1")
    assert first != second


def test_the_annotation_is_compact_json():
    job = build(PLAIN, parse("{}"), CASES["plain"][2])
    text = job["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION]
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text
