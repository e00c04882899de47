"""What the chart puts into a cluster: rights, the pod, certificates, the definition, and what is off unless wanted."""

import base64
import hashlib
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.helm import CHART, FULL, HELMS, Rendered, render, run, sets

from lmft_api.manifest.validation import document_problems
from lmft_operator.settings import parse

NAMESPACED_RULES = {
    ("lmfinetune.dev", "lmfinetunes"): {"get", "list", "watch", "delete"},
    ("lmfinetune.dev", "lmfinetunes/status"): {"patch"},
    ("lmfinetune.dev", "lmfinetunes/finalizers"): {"update"},
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"list", "watch"},
    ("", "events"): {"list", "watch", "create"},
}
LEASE_RULES = {("coordination.k8s.io", "leases"): {"create", "get", "update"}}
CLUSTER_RULES = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
    ("authentication.k8s.io", "tokenreviews"): {"create"},
}

SECURE_RULES = {("authorization.k8s.io", "subjectaccessreviews"): {"create"}}
"""With metrics.secure."""


def rules(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def test_the_operators_rights_over_the_whole_cluster_are_exactly_these() -> None:
    rendered = render()

    assert rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == NAMESPACED_RULES | CLUSTER_RULES
    (lease,) = rendered.all("Role")
    assert (lease["metadata"]["namespace"], rules(lease)) == ("lmft-system", LEASE_RULES)
    assert {tuple(rule.get("resourceNames", [])) for rule in lease["rules"] if "create" not in rule["verbs"]} == {
        ("lmfinetune",)
    }


def test_with_a_list_of_namespaces_its_rights_are_roles_there() -> None:
    rendered = render(*sets("watchNamespaces={team-a,team-b}"))

    assert rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == CLUSTER_RULES
    granted = {role["metadata"]["namespace"]: rules(role) for role in rendered.all("Role")}
    assert granted == {"lmft-system": LEASE_RULES, "team-a": NAMESPACED_RULES, "team-b": NAMESPACED_RULES}
    account = {"kind": "ServiceAccount", "name": "lmfinetune", "namespace": "lmft-system"}
    assert all(binding["subjects"] == [account] for binding in rendered.all("RoleBinding"))


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_no_role_has_a_wildcard_or_sees_secrets_logs_or_shells(arguments: list[str]) -> None:
    rendered = render(*arguments)

    text = yaml.safe_dump([role["rules"] for kind in ("Role", "ClusterRole") for role in rendered.all(kind)])

    assert "*" not in text
    assert not re.search(r"secrets|configmaps|pods/|serviceaccounts|impersonate|escalate|bind", text)


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_every_pod_satisfies_the_restricted_standard(arguments: list[str]) -> None:
    rendered = render(*arguments)

    for pod in (rendered.pod["spec"], rendered.one("Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
        assert all(set(volume) <= {"name", "configMap", "secret", "emptyDir"} for volume in pod["volumes"])


def test_one_operator_is_recreated_and_several_are_rolled_on_nodes_of_their_own_with_a_budget() -> None:
    one, two = render(), render(*sets("replicas=2"))

    alone, both = one.one("Deployment")["spec"], two.one("Deployment")["spec"]
    assert (alone["replicas"], alone["strategy"]) == (1, {"type": "Recreate"})
    assert one.all("PodDisruptionBudget") == []
    rolling = {"maxUnavailable": 1, "maxSurge": 1}
    assert (both["replicas"], both["strategy"]) == (2, {"type": "RollingUpdate", "rollingUpdate": rolling})
    assert two.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (apart,) = two.pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= two.pod["metadata"]["labels"].items()
    own = render(*sets("replicas=2", "affinity.nodeAffinity.a=b"))
    assert own.pod["spec"]["affinity"] == {"nodeAffinity": {"a": "b"}}


def test_the_operators_share_the_lease_that_their_role_names_and_say_where_they_are() -> None:
    rendered = render()

    lease = parse(rendered.config).leader
    role = next(role for role in rendered.all("Role") if role["metadata"]["namespace"] == "lmft-system")
    assert (lease.namespace, [lease.name]) == ("lmft-system", role["rules"][1]["resourceNames"])
    env = {entry["name"]: entry.get("valueFrom") for entry in rendered.pod["spec"]["containers"][0]["env"]}
    assert env["LMFT_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["LMFT_POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_change_of_the_settings_rolls_the_pod_and_nothing_else_does() -> None:
    before, same, after = render(), render(), render(*sets("job.gpuResourceName=amd.com/gpu"))

    def checksum(rendered: Rendered) -> str:
        text: str = rendered.pod["metadata"]["annotations"]["checksum/config"]
        return text

    assert checksum(before) == checksum(same) != checksum(after)


@pytest.mark.parametrize("helm", HELMS)
def test_secret_and_checksum_see_the_same_certificate(helm: str) -> None:
    rendered = render(helm=helm)

    certificate = rendered.one("Secret")["data"]["tls.crt"]

    expected = hashlib.sha256(certificate.encode()).hexdigest()
    assert rendered.pod["metadata"]["annotations"]["checksum/certificate"] == expected


def test_without_a_cluster_only_a_self_signed_certificate_differs_from_one_rendering_to_the_next() -> None:
    # As Argo CD does it: an operator that is rolled at every sync would show no progress of what runs.
    one, other = render(), render()
    assert one.one("Secret")["data"] != other.one("Secret")["data"]
    assert one.pod["metadata"]["annotations"] != other.pod["metadata"]["annotations"]

    for values in (["progress.tls.source=CertManager"], ["progress.tls.source=Secret", "progress.tls.secretName=x"]):
        assert render(*sets(*values)).objects == render(*sets(*values)).objects


def test_a_client_that_trusts_the_authority_accepts_the_certificate_for_its_name(tmp_path: Path) -> None:
    data = render().one("Secret")["data"]
    for name, content in data.items():
        (tmp_path / name).write_bytes(base64.b64decode(content))

    assert handshake(tmp_path, "lmfinetune-progress.lmft-system.svc") == "ok"
    assert "mismatch" in handshake(tmp_path, "lmfinetune-progress.other.svc")


def handshake(folder: Path, host: str) -> str:
    """A TLS handshake in memory; "ok" or the client's complaint."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client_context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(10):
        done = True
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as problem:
                return problem.verify_message
        if done:
            return "ok"
    raise AssertionError("the handshake does not end")


def test_a_certificate_from_cert_manager_hangs_on_an_authority_that_outlives_it() -> None:
    rendered = render(*sets("progress.tls.source=CertManager"))

    assert rendered.all("Secret") == []
    leaf = rendered.one("Certificate", "lmfinetune-progress")["spec"]
    assert leaf["secretName"] == "lmfinetune-progress-tls"
    assert leaf["dnsNames"][0] == "lmfinetune-progress.lmft-system.svc"
    assert rendered.one("Certificate", "lmfinetune-progress-ca")["spec"]["isCA"] is True
    assert rendered.one("Issuer", leaf["issuerRef"]["name"])["spec"] == {"ca": {"secretName": "lmfinetune-progress-ca"}}


def test_an_issuer_of_ones_own_signs_the_certificate_alone() -> None:
    values = ("progress.tls.source=CertManager", "progress.tls.certManager.issuerRef.name=corp")
    rendered = render(*sets(*values, "progress.tls.certManager.issuerRef.kind=ClusterIssuer"))

    assert rendered.all("Issuer") == []
    issuer = {"name": "corp", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert rendered.one("Certificate")["spec"]["issuerRef"] == issuer


def test_a_secret_of_ones_own_is_mounted_and_none_is_made() -> None:
    rendered = render(*sets("progress.tls.source=Secret", "progress.tls.secretName=corp-tls"))

    assert rendered.all("Secret") == []
    volumes = {volume["name"]: volume for volume in rendered.pod["spec"]["volumes"]}
    assert volumes["progress-tls"]["secret"]["secretName"] == "corp-tls"


def test_the_definition_is_the_generated_one_with_metadata() -> None:
    generated = yaml.safe_load((CHART / "files/crd.yaml").read_text())

    rendered = render().one("CustomResourceDefinition")

    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"]["labels"]["app.kubernetes.io/name"] == "lmfinetune"


def test_the_definition_can_be_left_to_others_or_go_with_the_release() -> None:
    assert render(*sets("crds.enabled=false")).all("CustomResourceDefinition") == []
    assert "annotations" not in render(*sets("crds.keep=false")).one("CustomResourceDefinition")["metadata"]


def test_what_needs_other_operators_or_blocks_drains_is_off_unless_wanted() -> None:
    optional = {
        "ValidatingAdmissionPolicy",
        "ServiceMonitor",
        "PrometheusRule",
        "PodDisruptionBudget",
        "Certificate",
        "Issuer",
    }

    assert optional.isdisjoint({item["kind"] for item in render().objects})
    assert optional <= {item["kind"] for item in render("--values", str(FULL)).objects}


@pytest.mark.parametrize(
    ("values", "peers"),
    [
        ([], [{"namespaceSelector": {}}]),
        (["--set-json", "networkPolicy.metricsFrom=[]"], []),
        (
            sets("networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=ops"),
            [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}],
        ),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_the_network_policy_lets_in_runs_to_report_and_whom_it_names_to_the_metrics(
    helm: str, values: list[str], peers: list[dict[str, Any]]
) -> None:
    policy = render(*values, helm=helm).one("NetworkPolicy")["spec"]

    assert policy["policyTypes"] == ["Ingress"]
    assert "egress" not in policy
    progress, monitoring = policy["ingress"]
    test = policy["ingress"][0]["from"][-1]
    assert [port["port"] for port in progress["ports"] + monitoring["ports"]] == ["progress", "metrics"]
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert "namespaceSelector" not in test
    assert monitoring["from"] == [*peers, test]
    runs = {"key": "lmfinetune.dev/run-uid", "operator": "Exists"}
    operators = {"podSelector": {"matchLabels": render().one("Deployment")["spec"]["selector"]["matchLabels"]}}
    assert progress["from"] == [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [runs]}}, operators, test]


SECURE = sets("metrics.secure=true", "metrics.serviceMonitor.enabled=true")


@pytest.mark.parametrize("helm", HELMS)
def test_metrics_for_everybody_take_no_right_and_no_certificate(helm: str) -> None:
    rendered = render(*sets("metrics.serviceMonitor.enabled=true"), helm=helm)

    (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint.keys() & {"scheme", "authorization", "bearerTokenFile", "tlsConfig"} == set()
    assert [role for role in rendered.all("ClusterRole") if "metrics" in role["metadata"]["name"]] == []
    assert ("authorization.k8s.io", "subjectaccessreviews") not in rules(
        rendered.one("ClusterRole", "lmft-system-lmfinetune")
    )
    assert parse(rendered.config).metrics.secure is False


@pytest.mark.parametrize("helm", HELMS)
def test_metrics_for_some_take_one_more_right_and_have_a_role_for_their_readers(helm: str) -> None:
    rendered = render(*SECURE, helm=helm)

    assert parse(rendered.config).metrics.secure is True
    assert (
        rules(rendered.one("ClusterRole", "lmft-system-lmfinetune")) == NAMESPACED_RULES | CLUSTER_RULES | SECURE_RULES
    )
    reader = rendered.one("ClusterRole", "lmft-system-lmfinetune-metrics-reader")
    assert reader["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    bound = {binding["roleRef"]["name"] for binding in rendered.all("ClusterRoleBinding")}
    assert bound == {"lmft-system-lmfinetune"}, "readers are for the cluster's administrator to name"
    assert render(*SECURE, *sets("rbac.create=false", "rbac.aggregate=false"), helm=helm).all("ClusterRole") == []


@pytest.mark.parametrize("progress", ["true", "false"])
@pytest.mark.parametrize("source", ["SelfSigned", "CertManager", "Secret"])
def test_prometheus_trusts_the_certificate_that_the_operator_shows(source: str, progress: str, tmp_path: Path) -> None:
    tls = [f"progress.tls.source={source}", *(["progress.tls.secretName=ours"] if source == "Secret" else [])]
    rendered = render(*SECURE, *sets(*tls, f"progress.enabled={progress}"))

    (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    authority, host = endpoint["tlsConfig"]["ca"]["secret"], endpoint["tlsConfig"]["serverName"]
    mounted = {volume["secret"]["secretName"] for volume in rendered.pod["spec"]["volumes"] if "secret" in volume}
    (mount,) = (
        mount for mount in rendered.pod["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "progress-tls"
    )
    settings = parse(rendered.config).progress
    assert endpoint["scheme"] == "https"
    assert endpoint["bearerTokenFile"] == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert mounted == {authority["name"]}
    assert (authority["key"], host) == ("ca.crt", "lmfinetune-progress.lmft-system.svc")
    assert [settings.cert_file, settings.key_file] == [f"{mount['mountPath']}/tls.{kind}" for kind in ("crt", "key")]
    (test,) = rendered.one("Pod")["spec"]["containers"]
    asked = {variable["name"]: variable["value"] for variable in test["env"]}
    assert asked["METRICS_URL"] == "https://lmfinetune-metrics.lmft-system.svc:8080"
    assert ("PROGRESS_URL" in asked, asked["PROGRESS_CA"]) == (progress == "true", "/etc/progress-ca/ca.crt")
    if source == "SelfSigned":
        for name, content in rendered.one("Secret")["data"].items():
            (tmp_path / name).write_bytes(base64.b64decode(content))
        assert handshake(tmp_path, host) == "ok"
    if source == "CertManager":
        certificates = rendered.all("Certificate")
        assert host in next(c for c in certificates if not c["spec"].get("isCA"))["spec"]["dnsNames"]


def test_prometheus_may_show_the_token_of_a_secret() -> None:
    (endpoint,) = render("--values", str(FULL)).one("ServiceMonitor")["spec"]["endpoints"]

    token = {"name": "prometheus-token", "key": "token"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": token}
    assert "bearerTokenFile" not in endpoint


@pytest.mark.parametrize("cidr", ["10.0.0.1/32", "fd00::1/128", "::/0", "::ffff:10.0.0.1/128"])
def test_the_operator_may_be_held_to_the_addresses_of_the_api_server(cidr: str) -> None:
    values = sets("networkPolicy.egress=true", f"networkPolicy.apiServerCIDRs={{{cidr}}}")

    policy = render(*values).one("NetworkPolicy")["spec"]
    _, _, api_server = policy["egress"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]

    assert api_server == {"ports": [{"port": 443}, {"port": 6443}], "to": [{"ipBlock": {"cidr": cidr}}]}


def test_probes_have_a_port_of_their_own_that_no_service_and_no_policy_opens() -> None:
    rendered = render()

    (container,) = rendered.pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"probes": 8081, "metrics": 8080, "progress": 8443}
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == ["probes"] * 3
    opened = [port["port"] for rule in rendered.one("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    served = [port["targetPort"] for service in rendered.all("Service") for port in service["spec"]["ports"]]
    assert "probes" not in opened + served


@pytest.mark.parametrize("arguments", [[], ["--values", str(FULL)]], ids=["default", "full"])
def test_both_helms_render_the_same_but_for_certificates(arguments: list[str]) -> None:
    four, three = (render(*arguments, *sets("progress.tls.source=CertManager"), helm=helm) for helm in HELMS)

    def sort_key(item: dict[str, Any]) -> tuple[str, str, str]:
        return item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", "")

    assert sorted(four.objects, key=sort_key) == sorted(three.objects, key=sort_key)


def test_extra_labels_are_on_every_object_and_never_in_a_selector() -> None:
    rendered = render(*sets("commonLabels.team=ml", "commonLabels.app\\.kubernetes\\.io/name=mine"))

    assert all(item["metadata"]["labels"]["team"] == "ml" for item in rendered.objects)
    assert rendered.pod["metadata"]["labels"]["team"] == "ml"
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert "team" not in selector
    assert selector.items() <= rendered.pod["metadata"]["labels"].items()


def test_services_select_the_operator_and_not_the_test() -> None:
    rendered = render()

    for service in rendered.all("Service"):
        selector = service["spec"]["selector"].items()
        assert selector <= rendered.pod["metadata"]["labels"].items()
        assert not selector <= rendered.one("Pod")["metadata"]["labels"].items()


def test_two_releases_share_no_cluster_wide_object() -> None:
    def names(rendered: Rendered) -> set[tuple[str, str]]:
        return {(i["kind"], i["metadata"]["name"]) for i in rendered.objects if "namespace" not in i["metadata"]}

    one = render(namespace="team-a")
    other = render(*sets("crds.enabled=false"), namespace="team-b")

    assert names(one) & names(other) == set()


def test_names_stay_legal_for_the_longest_release() -> None:
    rendered = render(release="a" * 53)

    names = [item["metadata"]["name"] for item in rendered.objects if item["kind"] in {"Service", "Pod", "Deployment"}]
    assert all(len(name) <= 63 and not name.endswith("-") for name in names)
    host = rendered.config.split("url: https://")[1].split()[0]
    assert host.split(".")[0] in {service["metadata"]["name"] for service in rendered.all("Service")}


def test_images_go_by_digest_then_tag_then_the_charts_version() -> None:
    digest = "sha256:" + "a" * 64

    def image(*values: str) -> str:
        text: str = render(*sets(*values)).pod["spec"]["containers"][0]["image"]
        return text

    assert image() == "ghcr.io/lmfinetune/operator:0.1.0"
    assert image("image.tag=v7") == "ghcr.io/lmfinetune/operator:v7"
    assert image("image.tag=v7", f"image.digest={digest}") == f"ghcr.io/lmfinetune/operator@{digest}"


@pytest.mark.parametrize(
    "values", [[], ["defaults.output.uri=s3://models"]], ids=["no default output", "default output"]
)
def test_the_first_manifest_in_the_notes_is_valid(values: list[str]) -> None:
    # Helm 3 wants a cluster even for this.
    notes = run("helm", "install", "lmfinetune", str(CHART), "--dry-run=client", *sets(*values)).split("NOTES:")[1]

    manifest = yaml.safe_load(pasted(notes))

    assert document_problems(manifest) == []
    assert ("output" in manifest["spec"]) == (not values)
    assert [line for line in notes.splitlines() if line.startswith(("1. ", "2. ", "3. "))]


def pasted(notes: str) -> str:
    """What kubectl would read if a person pasted the commands of the notes into a shell."""
    start = notes.index("\nkubectl -n default apply") + 1
    end = notes.index("\n\n3. ", start)
    script = f"kubectl() {{ cat; }}\n{notes[start:end]}\necho pasted\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    manifest, _, rest = done.stdout.rpartition("pasted")
    assert (rest, done.stderr) == ("\n", "")  # a shell that still looks for the end of the text would warn
    return manifest


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("release", ["1.2", "9lives", "my.app", "a.b.c", "0", "lmfinetune.9", "lmfinetune", "x" * 53])
def test_objects_have_legal_names_whatever_the_release_is_called(release: str, helm: str) -> None:
    rendered = render(*sets("admissionPolicy.enabled=true"), release=release, helm=helm)

    for item in rendered.objects:
        name, kind = item["metadata"]["name"], item["kind"]
        if kind == "Service":  # DNS-1035
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), name
        elif kind != "CustomResourceDefinition":
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), name
    assert rendered.pod["metadata"]["labels"]["app.kubernetes.io/instance"] == release


@pytest.mark.parametrize("text", ["123", "1e3", "true", "null", "0x1"])
def test_names_that_look_like_other_things_stay_names(text: str) -> None:
    values = [f"nameOverride={text}", f"watchNamespaces={{{text}}}", f"serviceAccount.name={text}"]
    strings = [word for value in values for word in ("--set-string", value)]
    rendered = render(*strings, *sets("networkPolicy.enabled=true"), namespace=text)

    for item in (item for item in rendered.objects if item["kind"] != "CustomResourceDefinition"):
        assert not [leaf for leaf in names(item) if not isinstance(leaf, str)], item
    assert rendered.pod["spec"]["serviceAccountName"] == text


def names(node: Any) -> list[Any]:
    """Every name, namespace and label value of an object."""
    if isinstance(node, list):
        return [leaf for child in node for leaf in names(child)]
    if not isinstance(node, dict):
        return []
    own = [value for key, value in node.items() if key in ("name", "namespace", "serviceAccountName")]
    labels = [v for key in ("labels", "matchLabels", "selector") for v in (node.get(key) or {}).values()]
    return own + [v for v in labels if not isinstance(v, dict)] + [leaf for v in node.values() for leaf in names(v)]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("wanted", "kinds"), [("true", 1), ("false", 0)])
def test_the_chart_is_a_dependency_with_a_condition(helm: str, wanted: str, kinds: int, tmp_path: Path) -> None:
    dependency = {"name": "lmfinetune", "version": "0.1.0", "condition": "lmfinetune.enabled"}
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (tmp_path / "values.yaml").write_text("global: {imageRegistry: x}\nlmfinetune: {enabled: false}\n")
    shutil.copytree(CHART, tmp_path / "charts/lmfinetune")

    text = run(helm, "template", "p", str(tmp_path), "--kube-version", "1.30.0", *sets(f"lmfinetune.enabled={wanted}"))

    assert len(re.findall("^kind: Deployment$", text, re.MULTILINE)) == kinds


def test_alerts_ask_for_metrics_that_the_operator_has() -> None:
    from prometheus_client import generate_latest

    from lmft_operator.process import metrics

    metrics.REQUESTS.labels("GET", "pods", "200")
    metrics.register_runs(lambda: [("team-a", "Training", "Stalled")])
    offered = generate_latest().decode()
    (group,) = render("--values", str(FULL)).one("PrometheusRule")["spec"]["groups"]

    asked = {name for rule in group["rules"] for name in re.findall(r"lmft_\w+", rule["expr"])}

    assert asked
    assert [name for name in asked if not re.search(rf"\n{name}[{{ ]", offered)] == []
