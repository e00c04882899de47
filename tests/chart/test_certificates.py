"""The certificate of the progress server: who makes it, who trusts it, and what it changes."""

import base64
import hashlib
from pathlib import Path

import pytest
from chart.helm import HELMS, render, sets
from chart.tls import handshake


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
