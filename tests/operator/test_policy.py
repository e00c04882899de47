"""Ways of getting at what is another's through a manifest: each is refused with the rule's name."""

from copy import deepcopy
from typing import Any

import pytest

from lmft_api.validation import parse_spec
from lmft_operator.policy import refusals
from lmft_operator.settings import PolicyRules, parse

PLAIN: dict[str, Any] = {"model": {"name": "gpt2"}, "dataset": {"name": "squad"}, "output": {"uri": "s3://models/a"}}
MODEL = {"model_type": "gpt2"}
DATA_VOLUME = {"volumes": [{"name": "d", "claimName": "lmft-data", "mountPath": "/data"}]}


def refused(settings: str = "{}", namespace: str = "team-a", **spec: Any) -> list[str]:
    platform = parse(settings)
    parsed = parse_spec(deepcopy(PLAIN) | spec)
    return [str(p) for p in refusals(parsed, platform.policy.for_namespace(namespace), platform.job)]


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
    ({"podTemplate": {"env": [{"name": "LD_PRELOAD", "value": "/data/evil.so"}]}}, "policy.envNames"),
    ({"podTemplate": {"env": [{"name": "PYTHONPATH", "value": "/data"}]}}, "policy.envNames"),
    ({"podTemplate": {"env": [{"name": "HF_ENDPOINT", "value": "http://evil"}]}}, "policy.envNames"),
    ({"podTemplate": {"env": [{"name": "HTTPS_PROXY", "value": "http://evil"}]}}, "policy.envNames"),
    ({"podTemplate": {"env": [{"name": "KUBEFLOW_TRAINER_SERVER_URL", "value": "http://evil"}]}}, "policy.envNames"),
    ({"podTemplate": {"priorityClassName": "system-node-critical"}}, "policy.priorityClasses"),
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


CONFIGURED = [
    ("policy: {maxGpus: 0}", {"resources": {"gpusPerNode": 1}}, "policy.maxGpus"),
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
