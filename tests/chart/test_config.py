"""The ConfigMap is what lmft_operator.settings reads: every setting reachable, the same defaults in both."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.helm import CHART, FULL, HELMS, render, sets

from lmft_operator.settings import OperatorSettings, Section, parse
from lmft_operator.values_schema import values_schema

# Decided by the chart: they go with its ports and mounts.
FIXED = {
    "job.image",
    "progress.url",
    "progress.host",
    "progress.port",
    "progress.certFile",
    "progress.keyFile",
    "progress.caFile",
    "leader.namespace",
    "leader.name",
    "probes.host",
    "probes.port",
    "metrics.host",
    "metrics.port",
    "watch.namespaces",
}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted paths of everything that is not a mapping; an empty mapping counts as one."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        key: leaf
        for name, child in value.items()
        for key, leaf in leaves(child, f"{path}.{name}" if path else name).items()
    }


def plain(settings: OperatorSettings) -> dict[str, Any]:
    return leaves(json.loads(settings.model_dump_json(by_alias=True)))


@pytest.mark.parametrize("helm", HELMS)
def test_the_default_values_say_the_same_as_the_operators_own_defaults(helm: str) -> None:
    rendered = plain(parse(render(helm=helm).config))
    own = plain(OperatorSettings())

    different = {path: (rendered.get(path), own.get(path)) for path in own if rendered.get(path) != own.get(path)}

    assert set(different) <= FIXED, different


@pytest.mark.parametrize("helm", HELMS)
def test_the_full_values_reach_every_setting(helm: str) -> None:
    config = render("--values", str(FULL), helm=helm).config
    rendered, own = plain(parse(config)), plain(OperatorSettings())

    untouched = {path for path, value in own.items() if path in rendered and rendered[path] == value} - FIXED

    assert untouched == set()


def test_the_full_values_arrive_as_they_were_given() -> None:
    settings = parse(render("--values", str(FULL)).config)

    assert settings.defaults.output_uri == "s3://models/lmft"
    assert settings.defaults.endpoint_url == "https://minio.storage.svc:9000"
    assert settings.defaults.credentials_secret_name == "lmft-output"
    assert settings.job.image.startswith("registry.example.com/ml/lmft-job@sha256:0123")
    assert settings.job.gpu_resource_name == "amd.com/gpu"
    assert settings.job.cache_volume_claim == "hub-cache"
    assert settings.policy.for_namespace("team-a").max_gpus == 1
    assert settings.policy.for_namespace("team-b").max_gpus == 0
    assert settings.policy.for_namespace("team-b").user_code is False
    assert settings.policy.for_namespace("team-b").trust_remote_code is True
    assert settings.watch.namespaces == ("team-a", "team-b")
    assert settings.progress.url == "https://lmfinetune-progress.lmft-system.svc"


def test_mirror_proxy_and_offline_switch_become_environment_and_env_wins() -> None:
    env = parse(render("--values", str(FULL)).config).job.env

    assert env["HF_ENDPOINT"] == "https://hub.example.com"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert env["NO_PROXY"] == ".svc,.example.com,10.0.0.0/8"
    assert env["HTTP_PROXY"] == "http://other.example.com:3128"


def test_progress_can_be_switched_off_altogether() -> None:
    rendered = render(*sets("progress.enabled=false"))

    assert parse(rendered.config).progress.url is None
    assert [service["metadata"]["name"] for service in rendered.all("Service")] == ["lmfinetune-metrics"]
    assert rendered.all("Secret") == []
    assert [port["name"] for port in rendered.pod["spec"]["containers"][0]["ports"]] == ["probes", "metrics"]


@pytest.mark.parametrize("helm", HELMS)
def test_the_user_may_be_left_to_the_platform(helm: str) -> None:
    assert parse(render(*sets("job.userID=null"), helm=helm).config).job.user_id is None


@pytest.mark.parametrize("helm", HELMS)
def test_maxima_may_be_written_as_numbers_and_differ_by_namespace(helm: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    rules = "maxCpu: 8, maxMemory: 64Gi, maxSharedMemory: 8589934592"
    file.write_text(f"policy: {{{rules}, perNamespace: {{team-a: {{maxCpu: 16, maxEphemeralStorage: 1Ti}}}}}}")

    policy = parse(render("--values", str(file), helm=helm).config).policy

    def maxima(namespace: str) -> tuple[str | None, ...]:
        rules = policy.for_namespace(namespace)
        return rules.max_cpu, rules.max_memory, rules.max_ephemeral_storage, rules.max_shared_memory

    assert maxima("team-a") == ("16", "64Gi", "1Ti", "8589934592")
    assert maxima("team-b") == ("8", "64Gi", None, "8589934592")


def test_large_numbers_are_written_as_integers() -> None:
    settings = parse(render(*sets("policy.maxDeadlineSeconds=315360000")).config)

    assert settings.policy.max_deadline_seconds == 315_360_000


@pytest.mark.parametrize(
    ("resources", "read"),
    [
        ("{cpu: 2}", ("2", "2Gi", "4Gi", "1Gi")),
        ("{memory: 8589934592}", ("1", "8589934592", "4Gi", "1Gi")),
        ("{ephemeralStorage: 1000000000000, sharedMemory: 2147483648}", ("1", "2Gi", "1000000000000", "2147483648")),
        ('{cpu: "1.5", memory: null, ephemeralStorage: "", sharedMemory: 2Gi}', ("1.5", None, None, "2Gi")),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_a_quantity_may_be_written_as_a_number(
    helm: str, resources: str, read: tuple[str | None, ...], tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(f"job: {{resources: {resources}}}")

    by_file = parse(render("--values", str(file), helm=helm).config).job.resources
    values = yaml.safe_load(file.read_text())["job"]["resources"]
    pairs = [f"job.resources.{name}={'null' if value is None else value}" for name, value in values.items()]
    by_option = parse(render(*sets(*pairs), helm=helm).config)

    assert (by_file.cpu, by_file.memory, by_file.ephemeral_storage, by_file.shared_memory) == read
    assert by_option.job.resources == by_file


@pytest.mark.parametrize("helm", HELMS)
def test_the_operator_reads_tolerations_at_the_edge_of_what_the_schema_lets_through(helm: str, tmp_path: Path) -> None:
    toleration = {"key": f"{'a' * 189}/{'b' * 63}", "value": "c" * 63, "effect": "NoExecute"}
    wanted = [toleration | {"tolerationSeconds": 315_360_000}, {"operator": "Exists"}]
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"job": {"gpuTolerations": wanted}}))

    read = parse(render("--values", str(file), helm=helm).config).job.gpu_tolerations

    assert [entry.to_json() for entry in read] == wanted


def test_every_section_of_the_settings_is_rendered() -> None:
    rendered = yaml.safe_load(render("--values", str(FULL)).config)

    missing = [
        f"{section}.{field.alias or name}"
        for section, model in ((name, field.annotation) for name, field in OperatorSettings.model_fields.items())
        if isinstance(model, type) and issubclass(model, Section)
        for name, field in model.model_fields.items()
        if (field.alias or name) not in rendered[section]
    ]

    assert missing == []


def test_the_schema_is_the_one_that_is_generated() -> None:
    written = json.loads((CHART / "values.schema.json").read_text())

    assert written == values_schema((CHART / "values.yaml").read_text()), "stale: run make generate"


def test_a_value_without_a_setting_has_the_type_of_its_default_or_of_its_comment() -> None:
    text = """
# Of the cache.
cache:
  # -- Whether.
  on: true
  # @schema {minimum: 3}
  # -- How many.
  size: 5
  # @schema name
  # -- Where.
  claim: ""
  # @schema [duration]
  waits: []
# -- As in the settings.
logLevel: INFO
"""
    properties = values_schema(text)["properties"]

    assert set(properties) == {"global", "enabled", "cache", "logLevel"}
    cache = properties["cache"]["properties"]
    assert properties["cache"]["additionalProperties"] is False
    assert (cache["on"], cache["size"]) == ({"type": "boolean"}, {"type": "integer", "minimum": 3})
    assert (cache["waits"]["type"], cache["waits"]["items"]["type"]) == ("array", "string")
    assert re.search(cache["claim"]["pattern"], "")
    assert re.search(cache["claim"]["pattern"], "a.b")
    assert not re.search(cache["claim"]["pattern"], "A b")
    assert properties["logLevel"]["enum"] == ["DEBUG", "INFO", "WARNING", "ERROR"]


def test_a_comment_that_names_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match='"colour" is not a kind; there are address, annotations'):
        values_schema("# @schema colour\nink: red\n")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("job: {userId: 7}", "job: {userID: 7}"),
        ("defaults: {endpointUrl: 'http://s3'}", "defaults: {endpointURL: 'http://s3'}"),
        ("documentationUrl: null", "documentationURL: null"),
    ],
)
def test_settings_of_the_chart_before_are_still_read(older: str, newer: str) -> None:
    assert parse(older) == parse(newer) != OperatorSettings()


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def keys(node: dict[str, Any], path: str = "") -> set[str]:
        found = set()
        for name, child in node.get("properties", {}).items():
            found |= keys(child, f"{path}{name}.") or {f"{path}{name}"}
        return found

    def resolved(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            target: Any = schema
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return resolved(target)
        if isinstance(node, dict):
            return {key: resolved(value) for key, value in node.items() if key not in {"definitions", "if", "then"}}
        return node

    documented = keys(resolved(schema)) - {"global", "enabled"}  # of the chart that has this one as a dependency
    given = {
        next((known for known in documented if path == known or path.startswith(f"{known}.")), f"unknown: {path}")
        for path in leaves(values)
    }
    assert given == documented


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("crds.enable=false", "enable"),
        ("defaults.output.uri=models/team-a", "uri"),
        ("defaults.output.endpointURL=minio:9000", "endpointURL"),
        ("image.digest=latest", "digest"),
        ("job.image.pullPolicy=Sometimes", "pullPolicy"),
        ("job.userID=0", "userID"),
        ("job.terminationGracePeriodSeconds=0", "terminationGracePeriodSeconds"),
        ("policy.images=all", "images"),
        ("policy.perNamespace.team-a.maxGPU=1", "maxGPU"),
        ("policy.maxGpus=many", "maxGpus"),
        ("progress.tls.source=Vault", "source"),
        ("progress.tls.source=Secret", "secretName"),
        ("watchNamespaces={Team A}", "watchNamespaces"),
        ("logLevel=TRACE", "logLevel"),
        ("metrics.port=99999", "port"),
        ("metrics.secure=maybe", "secure"),
        ("metrics.serviceMonitor.tokenSecret.name=A B", "name"),
        ("metrics.serviceMonitor.tokenSecret.key=", "key"),
        ("replicas=two", "replicas"),
        ("leaderElection.leaseSeconds=1", "leaseSeconds"),
        ("nameOverride=Foo Bar", "nameOverride"),
        ("fullnameOverride=a.b", "fullnameOverride"),
        ("fullnameOverride=1ab", "fullnameOverride"),
        ("commonLabels.team=ml platform", "team"),
        ("watchNamespaces={a.b}", "watchNamespaces"),
        ("defaults.hubTokenSecretName=a..b", "hubTokenSecretName"),
        ("job.env.A B=c", "A B"),
        ("job.labels.a/b/c=d", "a/b/c"),
        ("job.nodeSelector.pool=a b", "pool"),
        ("job.resources.cpu=-1", "cpu"),
        ("job.resources.memory=lots", "memory"),
        ("job.resources.memory=0", "memory"),
        ("job.resources.ephemeralStorage=0.0Gi", "ephemeralStorage"),
        ("policy.maxCpu=0", "maxCpu"),
        ("policy.maxMemory=0m", "maxMemory"),
        ("policy.perNamespace.team-a.maxSharedMemory=-1Gi", "maxSharedMemory"),
        ("job.gpuResourceName=gpu", "gpuResourceName"),
        ("job.gpuTolerations[0].key=a b", "key"),
        ("job.gpuTolerations[0].value=no", "key"),
        ("job.gpuTolerations[0].key=a,job.gpuTolerations[0].value=b c", "value"),
        ("job.gpuTolerations[0].operator=Exists,job.gpuTolerations[0].value=b", "gpuTolerations"),
        ("job.gpuTolerations[0].key=a,job.gpuTolerations[0].tolerationSeconds=9", "effect"),
        (
            "job.gpuTolerations[0].key=a,job.gpuTolerations[0].effect=NoExecute,"
            "job.gpuTolerations[0].tolerationSeconds=315360001",
            "tolerationSeconds",
        ),
        ("connections.maxPerPort=4", "maxPerPort"),
        ("connections.maxPerSource=many", "maxPerSource"),
        ("networkPolicy.apiServerCIDRs={banana}", "apiServerCIDRs"),
        ("networkPolicy.apiServerCIDRs={10.0.0.1}", "apiServerCIDRs"),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_a_wrong_value_is_refused_by_name(helm: str, value: str, named: str) -> None:
    with pytest.raises(RuntimeError, match=named):
        render(*sets(value), helm=helm)


def test_every_value_is_described_in_the_readme() -> None:
    rows = [line for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| ")]
    values = [row.strip("|").split("|", 3) for row in rows if row.count("|") >= 5 and "`" in row.split("|")[3]]

    assert len(values) > 100
    assert [cells[0] for cells in values if len(cells[3].strip()) < 5] == []
