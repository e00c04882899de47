"""Which trackers manifests may name: none by default, and each address as the platform team wrote it."""

import pytest

from lmft_api.manifest.validation import parse_spec
from lmft_operator.jobs.policy import refusals
from lmft_operator.settings import parse

PLAIN = {"model": {"name": "gpt2"}, "dataset": {"name": "squad"}, "output": {"uri": "s3://models/a"}}


def refused(settings: str, report_to: dict[str, object], namespace: str = "team-a") -> list[str]:
    return [str(p) for p in refusals(parse_spec({**PLAIN, "reportTo": report_to}), parse(settings), namespace)]


def test_by_default_no_tracker_is_allowed_and_event_files_are():
    assert refused("{}", {"tensorBoard": True}) == []
    assert refused("{}", {"mlflow": {"uri": "https://m.example"}}) == [
        'spec.reportTo.mlflow.uri: tracker "https://m.example" is not allowed here (policy.trackers); choose another, '
        "or ask the platform team"
    ]


def test_weights_and_biases_is_a_tracker_as_others_also_where_no_address_is_named():
    [problem] = refused("{}", {"wandb": {}})
    assert problem.startswith('spec.reportTo.wandb.url: tracker "https://api.wandb.ai" is not allowed here')
    assert refused("policy: {trackers: ['https://api.wandb.ai/*']}", {"wandb": {"project": "toys"}}) == []
    assert refused("policy: {trackers: ['https://api.wandb.ai/*']}", {"wandb": {"url": "https://wandb.evil.org"}})


@pytest.mark.parametrize("pattern", ["https://m.example", "https://m.example/", "https://m.example/*"])
def test_a_final_slash_makes_no_difference(pattern: str):
    for uri in ("https://m.example", "https://m.example/"):
        assert refused(f"policy: {{trackers: ['{pattern}']}}", {"mlflow": {"uri": uri}}) == []


@pytest.mark.parametrize(
    "uri", ["http://m.example", "https://m.example.evil.org", "https://m.example:8443", "https://n.example"]
)
def test_another_scheme_host_or_port_is_another_tracker(uri: str):
    assert refused("policy: {trackers: ['https://m.example/*']}", {"mlflow": {"uri": uri}})


def test_a_namespace_may_have_trackers_of_its_own():
    platform = "policy: {perNamespace: {team-a: {trackers: ['http://m.ml.svc:5000']}}}"
    mlflow = {"mlflow": {"uri": "http://m.ml.svc:5000"}}
    assert refused(platform, mlflow) == []
    assert refused(platform, mlflow, "team-b")


def test_the_keys_are_of_a_secret_that_manifests_may_name():
    secret = {"credentialsSecretRef": {"name": "db-password"}}
    wanted = {"mlflow": {"uri": "https://m.example", **secret}, "wandb": secret}
    problems = refused("policy: {trackers: ['*']}", wanted)
    assert [problem.split(" is ")[0] for problem in problems] == [
        f'spec.reportTo.{name}.credentialsSecretRef.name: Secret "db-password"' for name in ("mlflow", "wandb")
    ]
