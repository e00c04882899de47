"""Ways of getting at what is another's through a manifest: each is refused with the rule's name."""

from copy import deepcopy
from typing import Any

import pytest

from lmft_api.manifest.validation import parse_spec
from lmft_operator.jobs.policy import refusals
from lmft_operator.settings import PolicyRules, SettingsError, parse

PLAIN: dict[str, Any] = {"model": {"name": "gpt2"}, "dataset": {"name": "squad"}, "output": {"uri": "s3://models/a"}}
MODEL = {"model_type": "gpt2"}
DATA_VOLUME = {"volumes": [{"name": "d", "claimName": "lmft-data", "mountPath": "/data"}]}


def refused(settings: str = "{}", namespace: str = "team-a", **spec: Any) -> list[str]:
    parsed = parse_spec(deepcopy(PLAIN) | spec)
    return [str(p) for p in refusals(parsed, parse(settings), namespace)]


ATTACKS = [
    ({"output": {"uri": "s3://models/x", "credentialsSecretRef": {"name": "db-password"}}}, "policy.secrets"),
    ({"model": {"name": "s3://models/x", "credentialsSecretRef": {"name": "admin-token"}}}, "policy.secrets"),
    ({"dataset": {"name": "squad", "credentialsSecretRef": {"name": "tls"}}}, "policy.secrets"),
    ({"hubTokenSecretRef": {"name": "default-token-x1", "key": "token"}}, "policy.secrets"),
    ({"podTemplate": {"imagePullSecrets": [{"name": "registry"}]}}, "policy.secrets"),
    ({"podTemplate": {"image": "evil.example.com/miner"}}, "policy.images"),
    ({"podTemplate": {"serviceAccountName": "cluster-admin"}}, "policy.serviceAccounts"),
    (
        {"podTemplate": {"volumes": [{"name": "v", "claimName": "postgres-data", "mountPath": "/data"}]}},
        "policy.volumes",
    ),
    ({"model": {"name": "someone/code", "trustRemoteCode": True}}, "policy.trustRemoteCode"),
    ({"training": {"callbacks": ["os.system"]}}, "policy.userCode"),
    ({"training": {"trainerClass": "evil.module.Trainer"}}, "policy.userCode"),
    ({"podTemplate": {"priorityClassName": "system-node-critical"}}, "policy.priorityClasses"),
    ({"podTemplate": {"tolerations": [{"operator": "Exists"}]}}, "policy.tolerationKeys"),
    (
        {"podTemplate": {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]}},
        "policy.tolerationKeys",
    ),
    ({"resources": {"gpusPerNode": 1, "gpuResourceName": "devices.kubevirt.io/kvm"}}, "policy.gpuResourceNames"),
    ({"resources": {"gpusPerNode": 1, "gpuResourceName": "memory"}}, "policy.gpuResourceNames"),
    ({"dataset": {"files": ["file:///etc/lmft/secrets/output/*"], "format": "text"}}, "spec.podTemplate.volumes"),
    ({"dataset": {"files": ["file:///proc/self/environ"], "format": "text"}}, "spec.podTemplate.volumes"),
    (
        {
            "dataset": {"files": ["file:///data/../etc/lmft/secrets/hub/token"], "format": "text"},
            "podTemplate": DATA_VOLUME,
        },
        "spec.podTemplate.volumes",
    ),
    (
        {
            "dataset": {"files": ["file:///data/%2e%2e/etc/lmft/run.json"], "format": "text"},
            "podTemplate": DATA_VOLUME,
        },
        "spec.podTemplate.volumes",
    ),
    (
        {"dataset": {"files": ["file:///database/x"], "format": "text"}, "podTemplate": DATA_VOLUME},
        "spec.podTemplate.volumes",
    ),
    ({"model": {"name": "file:///var/run/secrets/x"}}, "spec.podTemplate.volumes"),
    ({"model": {"fromConfig": MODEL, "tokenizer": {"name": "file:///etc"}}}, "spec.podTemplate.volumes"),
    ({"output": {"uri": "file:///tmp/elsewhere"}}, "spec.podTemplate.volumes"),
    ({"output": {"uri": "s3://models/a/../b"}}, '".."'),
    ({"dataset": {"files": ["s3://models/team-a/%2e%2e/team-b/*"], "format": "text"}}, '".."'),
]


@pytest.mark.parametrize(("spec", "rule"), ATTACKS)
def test_a_manifest_cannot_get_at_what_is_anothers(spec, rule):
    platform = "policy: {volumes: [lmft-data]}" if "podTemplate" in spec and "dataset" in spec else "{}"
    found = refused(platform, **spec)
    assert any(rule in problem for problem in found), found


# Variables that run code, send tokens elsewhere, or point the libraries at other files.
ENVIRONMENT = [
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "BASH_ENV", "GCONV_PATH", "LOCPATH"),
    *("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PYTHONUSERBASE", "PYTHONWARNINGS"),
    *("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "OMP_TOOL_LIBRARIES"),
    *("CUDA_INJECTION64_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_TOKEN_PATH", "HF_MODULES_CACHE", "HF_HUB_CACHE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "SSLKEYLOGFILE"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_CONFIG_FILE", "AWS_PROFILE"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ACCESS_KEY_ID"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_TOKEN", "KUBEFLOW_TRAINER_SERVER_CA_CERT"),
    *("DISABLE_KUBEFLOW_INTEGRATION", "LMFT_TESTING", "KUBERNETES_SERVICE_HOST"),
]


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_the_environment_runs_no_code_and_moves_no_address(name):
    assert any("policy.envNames" in p for p in refused(podTemplate={"env": [{"name": name, "value": "x"}]}))


@pytest.mark.parametrize("name", ["KUBEFLOW_TRAINER_SERVER_URL", "DISABLE_KUBEFLOW_INTEGRATION", "LMFT_TESTING"])
def test_how_a_run_reports_is_the_operators_whatever_the_policy(name):
    assert refused("policy: {envNames: ['*']}", podTemplate={"env": [{"name": name, "value": "x"}]})


STEERING = [
    ("annotations", "sidecar.istio.io/inject"),
    ("annotations", "sidecar.istio.io/userVolume"),  # mounts any Secret of the namespace into the sidecar
    ("annotations", "sidecar.istio.io/proxyImage"),
    ("annotations", "linkerd.io/inject"),
    ("annotations", "vault.hashicorp.com/agent-inject-secret-x"),
    ("annotations", "iam.amazonaws.com/role"),
    ("annotations", "k8s.v1.cni.cncf.io/networks"),
    ("annotations", "cdi.k8s.io/gpu"),  # devices that containerd adds without a resource
    ("annotations", "container.apparmor.security.beta.kubernetes.io/job"),
    ("labels", "app"),
    ("labels", "app.kubernetes.io/name"),
    ("labels", "azure.workload.identity/use"),
    ("labels", "batch.kubernetes.io/controller-uid"),
    ("labels", "job-name"),
]


@pytest.mark.parametrize(("field", "key"), STEERING)
def test_what_steers_others_controllers_is_not_the_manifests(field, key):
    assert any(f"policy.{field[:-1]}Keys" in p for p in refused(podTemplate={field: {key: "true"}}))


@pytest.mark.parametrize("key", ["batch.kubernetes.io/job-name", "controller-uid", "job-name"])
def test_what_tells_the_job_controller_its_pods_is_no_manifests_whatever_the_policy(key):
    assert refused("policy: {labelKeys: ['*']}", podTemplate={"labels": {key: "x"}})


@pytest.mark.parametrize("field", ["labels", "annotations", "nodeSelector"])
def test_what_the_platform_sets_for_every_run_cannot_be_changed(field):
    platform = f"{{job: {{{field}: {{team: a}}}}, policy: {{annotationKeys: [team]}}}}"
    assert refused(platform, podTemplate={field: {"team": "a"}}) == []
    (found,) = refused(platform, podTemplate={field: {"team": "b"}})
    assert found == f'spec.podTemplate.{field}: key "team" is the platform\'s: it is "a" for every run'


def with_variable(platform: str, name: str, value: str) -> list[str]:
    return refused(platform, podTemplate={"env": [{"name": name, "value": value}]})


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        ("HF_HUB_OFFLINE", "HF_HUB_OFFLINE"),
        ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
        ("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"),
        ("TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"),
        ("HF_ENDPOINT", "HF_ENDPOINT"),
        ("HTTPS_PROXY", "HTTPS_PROXY"),
        ("TZ", "TZ"),
    ],
)
def test_a_variable_that_the_platform_sets_for_every_run_cannot_be_changed(ours, name):
    platform = f"{{job: {{env: {{{ours}: '1'}}}}, policy: {{envNames: ['*']}}}}"
    assert with_variable(platform, name, "1") == []
    assert with_variable(platform, name, "0") == [
        f'spec.podTemplate.env[0].name: variable "{name}" is refused: '
        f"the platform sets {ours} for every run (job.env); remove it"
    ]


def test_offline_is_the_manifests_choice_where_the_platform_makes_none():
    assert with_variable("{}", "HF_HUB_OFFLINE", "0") == []


# Whose folder an address names, where the platform's storage is s3://models/lmft and the namespace team-a.
FOLDERS = [
    ("s3://models/lmft/team-b/data.jsonl", False),
    ("s3://models/lmft/team-a/data.jsonl", True),
    ("s3://models/lmft/team-a2/data.jsonl", False),
    ("s3://models/lmft", False),
    ("s3://models/lmft/*/data.jsonl", False),
    ("s3://models/lmft/team-?/data.jsonl", False),
    ("s3://models/lmft/team-[a-z]/data.jsonl", False),
    ("s3://models/*/team-b/data.jsonl", False),
    ("s3://models/l*", False),
    ("s3://models/**", False),
    ("s3://models//lmft/team-b/data.jsonl", False),
    ("s3://models/./lmft/.//team-b/data.jsonl", False),
    ("s3://models/lmft/team-a/*.jsonl", True),
    ("s3://models/lmft2/data.jsonl", True),
    ("s3://others/lmft/team-b/data.jsonl", True),
    ("s3://models/lmft/shared/data.jsonl", True),
    ("s3://models/lmft/team%2Db/data.jsonl", False),
    ("s3://models/lm%66t/team-b/data.jsonl", False),
    ("s3://models/lmft/team-a/My%20Data/x y.jsonl", True),
    ("s3://models/lmft/sh?red/data.jsonl", False),
]
SHARED = (
    "{defaults: {outputUri: 's3://models/lmft/'}, policy: {sources: {uris: ['s3://*', 's3://models/lmft/shared/*']}}}"
)


@pytest.mark.parametrize(("address", "ours"), FOLDERS)
def test_of_the_platforms_storage_a_namespace_reads_its_own_folder(address, ours):
    found = refused(SHARED, dataset={"files": [address], "format": "json"})
    assert (found == []) == ours
    assert all("policy.sources.uris" in problem for problem in found)


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("s3://models/lmft", True),
        ("s3://models/lmft/", True),
        ("s3://models/lmft/team-a", True),
        ("s3://models/lmft/team-b", False),
        ("s3://models/lmft/team-b/runs/eli5-01234567/checkpoints", False),
        ("s3://models//lmft//team-b", False),
    ],
)
def test_of_the_platforms_storage_a_namespace_writes_its_own_folder(address, ours):
    assert (refused(SHARED, output={"uri": address}) == []) == ours


@pytest.mark.parametrize(
    ("pattern", "address", "admitted"),
    [
        ("s3://data/team-?/*", "s3://data/team-a/*.jsonl", True),
        ("s3://data/team-?/*", "s3://data/team-*/x.jsonl", False),
        ("s3://data/team-?/*", "s3://data/team-%2A/x.jsonl", False),
        ("s3://data/team-?/*", "s3://data/team-?/x.jsonl", False),
        ("s3://data/??????/x", "s3://data/**/x", False),
        ("s3://data/team-[!b]/*", "s3://data/team-*/x.jsonl", False),
        ("s3://data/team-*/*", "s3://data/team-*/x.jsonl", True),
        ("s3://data/My Data/*", "s3://data/My%20Data/x.jsonl", True),
    ],
)
def test_a_manifests_wildcard_stands_for_no_more_than_a_patterns_star(pattern, address, admitted):
    platform = f"policy: {{sources: {{uris: ['s3://models/*', '{pattern}']}}}}"
    assert (refused(platform, dataset={"files": [address], "format": "json"}) == []) == admitted


@pytest.mark.parametrize("field", ["model", "tokenizer"])
def test_anothers_model_is_not_to_be_had_with_the_platforms_keys(field):
    theirs = "s3://models/lmft/team-b/runs/eli5-01234567/model"
    model = {"name": theirs} if field == "model" else {"fromConfig": MODEL, "tokenizer": {"name": theirs}}
    assert len(refused(SHARED, model=model)) == 1


def test_a_folder_on_a_shared_volume_is_found_out_however_it_is_spelt():
    platform = "{defaults: {outputUri: 'file:///data'}, policy: {volumes: [lmft-data]}}"
    files = {"files": ["file:///%64ata/team-b/x.txt"], "format": "text"}
    assert refused(platform, dataset=files, podTemplate=DATA_VOLUME)


CONFIGURED = [
    ("policy: {maxGpus: 0}", {"resources": {"gpusPerNode": 1}}, "policy.maxGpus"),
    ("policy: {maxNodes: 4, maxGpus: 8}", {"resources": {"nodes": 3, "gpusPerNode": 3}}, "policy.maxGpus"),
    ("policy: {maxNodes: 4}", {"resources": {"nodes": 5}}, "policy.maxNodes"),
    ("{}", {"resources": {"nodes": 2}}, "policy.maxNodes"),
    (
        "{policy: {maxNodes: 2}, job: {labels: {kueue.x-k8s.io/queue-name: gpus}}}",
        {"resources": {"nodes": 2, "elastic": {}}},
        "job.labels",
    ),
    ("policy: {maxDeadlineSeconds: 60}", {"activeDeadlineSeconds": 61}, "policy.maxDeadlineSeconds"),
    ("policy: {sources: {hub: [ours/*]}}", {"model": {"name": "theirs/m"}}, "policy.sources.hub"),
    ("policy: {sources: {uris: ['s3://ours/*']}}", {"output": {"uri": "s3://theirs/x"}}, "policy.sources.uris"),
    ("policy: {labelKeys: [team]}", {"podTemplate": {"labels": {"app": "shop"}}}, "policy.labelKeys"),
    ("policy: {annotationKeys: []}", {"podTemplate": {"annotations": {"inject": "yes"}}}, "policy.annotationKeys"),
    ("policy: {runtimeClasses: [nvidia]}", {"podTemplate": {"runtimeClassName": "kata"}}, "policy.runtimeClasses"),
    (
        "policy: {pushToHub: [ours/*]}",
        {
            "output": {"uri": "s3://models/a", "pushToHub": {"repository": "theirs/m"}},
            "hubTokenSecretRef": {"name": "lmft-hub", "key": "token"},
        },
        "policy.pushToHub",
    ),
]


@pytest.mark.parametrize(("platform", "spec", "rule"), CONFIGURED)
def test_the_platform_team_may_forbid_more(platform, spec, rule):
    found = refused(platform, **spec)
    assert found
    assert all(rule in problem for problem in found)


ALLOWED = [
    ("{}", {}),
    ("{}", {"output": {"uri": "s3://models/a", "credentialsSecretRef": {"name": "lmft-s3"}}}),
    ("{}", {"podTemplate": {"serviceAccountName": "default", "env": [{"name": "TZ", "value": "UTC"}]}}),
    ("job: {image: ours}", {"podTemplate": {"image": "ours"}}),
    ("policy: {images: ['reg.example.com/*']}", {"podTemplate": {"image": "reg.example.com/a/b:1"}}),
    ("policy: {userCode: true}", {"training": {"callbacks": ["a.B"]}}),
    ("policy: {trustRemoteCode: true}", {"model": {"name": "a/b", "trustRemoteCode": True}}),
    ("policy: {priorityClasses: [system-low]}", {"podTemplate": {"priorityClassName": "system-low"}}),
    ("policy: {tolerationKeys: ['']}", {"podTemplate": {"tolerations": [{"operator": "Exists"}]}}),
    ("{}", {"podTemplate": {"tolerations": [{"key": "spot", "operator": "Exists"}]}}),
    ("{}", {"podTemplate": {"labels": {"kueue.x-k8s.io/queue-name": "gpus", "team": "a"}}}),
    ("{}", {"resources": {"gpusPerNode": 1, "gpuResourceName": "nvidia.com/mig-1g.5gb"}}),
    ("{}", {"resources": {"nodes": 1, "gpusPerNode": 64}}),
    ("policy: {maxNodes: 4, maxGpus: 8}", {"resources": {"nodes": 4, "gpusPerNode": 2, "elastic": {}}}),
    ("{}", {"podTemplate": {"annotations": {"kueue.x-k8s.io/podset-required-topology": "rack"}}}),
    ("job: {gpuResourceName: x.y/z}", {"resources": {"gpusPerNode": 1, "gpuResourceName": "x.y/z"}}),
    (
        "policy: {volumes: [lmft-*]}",
        {"dataset": {"files": ["file:///data/a/*.txt"], "format": "text"}, "podTemplate": DATA_VOLUME},
    ),
]


@pytest.mark.parametrize(("platform", "spec"), ALLOWED)
def test_what_the_rules_list_passes(platform, spec):
    assert refused(platform, **spec) == []


def test_a_namespace_may_have_rules_of_its_own_and_keeps_the_others():
    platform = "policy: {maxGpus: 0, perNamespace: {team-a: {maxGpus: 1}}}"
    gpu = {"resources": {"gpusPerNode": 1}}
    assert refused(platform, "team-a", **gpu) == []
    assert len(refused(platform, "team-b", **gpu)) == 1
    assert len(refused(platform, "team-a", podTemplate={"image": "x"})) == 1


# A namespace's exception, and what it may then name; the platform's rule is s3://data/* and company/*.
SOURCES = [
    ("{hub: []}", "company/m", False),
    ("{hub: []}", "theirs/m", False),
    ("{hub: []}", "s3://data/m", True),
    ("{hub: []}", "s3://theirs/m", False),
    ("{uris: []}", "company/m", True),
    ("{uris: []}", "theirs/m", False),
    ("{uris: []}", "s3://data/m", False),
    ("{}", "theirs/m", False),
    ("{}", "s3://theirs/m", False),
    ("{hub: ['*'], uris: ['s3://*']}", "theirs/m", True),
    ("{hub: ['*'], uris: ['s3://*']}", "s3://theirs/m", True),
]


@pytest.mark.parametrize(("sources", "model", "allowed"), SOURCES)
def test_an_exception_for_sources_leaves_the_rule_that_it_does_not_name_as_the_platform_set_it(sources, model, allowed):
    rules = "{uris: ['s3://data/*'], hub: ['company/*']}"
    platform = f"policy: {{sources: {rules}, perNamespace: {{team-b: {{sources: {sources}}}}}}}"

    found = refused(platform, "team-b", model={"name": model}, dataset={"builtin": "PythonDocs"}, output=None)

    assert (found == []) == allowed, found


def test_all_refusals_come_at_once():
    found = refused(
        podTemplate={"image": "x", "serviceAccountName": "y", "imagePullSecrets": [{"name": "z"}]},
        training={"trainerClass": "a.B"},
    )
    assert len(found) == 4


def test_the_defaults_forbid_what_is_not_ours():
    rules = PolicyRules()
    assert (rules.images, rules.service_accounts, rules.secrets) == ((), ("default",), ("lmft-*",))
    assert (rules.trust_remote_code, rules.user_code, rules.volumes) == (False, False, ())


MAXIMA = "policy: {maxCpu: 8, maxMemory: 64Gi, maxEphemeralStorage: 1Ti, maxSharedMemory: 16Gi}".replace("8,", '"8",')


@pytest.mark.parametrize(
    ("field", "most", "more", "rule"),
    [
        ("cpu", "8", "8001m", "policy.maxCpu"),
        ("memory", "64Gi", "68719476737", "policy.maxMemory"),
        ("memory", "65536Mi", "0.1Ti", "policy.maxMemory"),
        ("ephemeralStorage", "1024Gi", "1.1T", "policy.maxEphemeralStorage"),
        ("sharedMemory", "17179869184", "17Gi", "policy.maxSharedMemory"),
    ],
)
def test_a_run_asks_for_no_more_than_the_maxima_however_it_writes_it(field, most, more, rule):
    assert refused(MAXIMA, resources={field: most}) == []
    (problem,) = refused(MAXIMA, resources={field: more})
    assert problem.startswith(f"spec.resources.{field}: {more}; at most ")
    assert rule in problem


def test_a_namespace_may_have_other_maxima():
    settings = "policy: {maxMemory: 8Gi, perNamespace: {team-a: {maxMemory: 64Gi}, team-b: {maxMemory: null}}}"
    wanted = {"memory": "16Gi"}
    assert refused(settings, "team-a", resources=wanted) == []
    assert refused(settings, "team-b", resources=wanted) == []
    assert refused(settings, "team-c", resources=wanted)


@pytest.mark.parametrize("value", ['"0"', "0.0Gi", "0m", '"-1"', "lots"])
@pytest.mark.parametrize("field", ["job: {resources: {memory: %s}}", "policy: {maxMemory: %s}"])
def test_a_platform_cannot_lift_its_limits_by_a_typing_error(field, value):
    with pytest.raises(SettingsError, match=r"[mM]emory"):
        parse(field % value)
