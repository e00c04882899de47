"""Where the API server is: by the addresses that kubelet gives a pod, never by a name that needs the cluster's DNS."""

import kopf
import pytest

from lmft_operator.cluster import access

INSIDE = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")
FOUND = [
    ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.96.0.1:443"),
    ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT_HTTPS": "6443"}, "https://[fd00::1]:6443"),
    ({"KUBERNETES_SERVICE_HOST": "api.internal"}, "https://api.internal:443"),
    ({}, "https://kubernetes.default.svc"),
]


@pytest.mark.parametrize(("environment", "server"), FOUND)
def test_a_pod_reaches_the_api_server_where_kubelet_says(
    environment: dict[str, str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: INSIDE)
    for name in ("HOST", "PORT", "PORT_HTTPS"):
        monkeypatch.delenv(f"KUBERNETES_SERVICE_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = access.login()
    assert found is not None
    assert (found.server, found.token) == (server, "t")


def test_outside_a_cluster_the_kubeconfig_says(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = kopf.ConnectionInfo(server="https://127.0.0.1:6443")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: None)
    monkeypatch.setattr(kopf, "login_with_kubeconfig", lambda **_: outside)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert access.login() is outside
