"""Address of the API server and credentials for it: the pod's service account, else a kubeconfig.

kopf finds both; this module turns them into what an HTTP session needs.
"""

import base64
import dataclasses
import logging
import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf

TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
TOKEN_SECONDS = 60.0
"""Seconds for which a token that was read is reused; kubelet renews the file long before the token expires."""


@dataclass
class Access:
    """An API server and credentials for it."""

    server: str
    tls: ssl.SSLContext
    _token: str | None = None
    _token_file: Path | None = None
    _read: float = 0.0

    def token(self) -> str | None:
        """The bearer token to send now; None when a client certificate is used instead."""
        if self._token_file is not None and time.monotonic() - self._read > TOKEN_SECONDS:
            self._token = self._token_file.read_text(encoding="ascii").strip()
            self._read = time.monotonic()
        return self._token


def login(**named: Any) -> kopf.ConnectionInfo | None:
    """Login handler for kopf and this operator: the pod's service account, else KUBECONFIG or ~/.kube/config.

    In a pod the address comes from kubelet's environment variables: its DNS name would fail while cluster DNS is down.
    """
    info = kopf.login_with_service_account(**named)
    if info is None:
        return kopf.login_with_kubeconfig(**named)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        return info
    port = os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    return dataclasses.replace(info, server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")


def find() -> Access:
    """Find the pod's service account, else what KUBECONFIG or ~/.kube/config says.

    Raises:
        kopf.LoginError: neither is there.
    """
    logger = logging.getLogger(__name__)
    settings = kopf.OperatorSettings()
    info = login(logger=logger, settings=settings)
    if info is None:
        raise kopf.LoginError("no service account and no kubeconfig: set KUBECONFIG")
    return Access(
        server=info.server.rstrip("/"),
        tls=_tls(info),
        _token=info.token,
        _token_file=TOKEN_FILE if TOKEN_FILE.exists() else None,
    )


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext:
    authority = base64.b64decode(info.ca_data).decode("ascii") if info.ca_data else None
    context = ssl.create_default_context(cafile=str(info.ca_path) if info.ca_path else None, cadata=authority)
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if info.certificate_path and info.private_key_path:
        context.load_cert_chain(str(info.certificate_path), str(info.private_key_path))
    elif info.certificate_data and info.private_key_data:
        # The ssl module reads certificates from files only.
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for name, data in (("crt", info.certificate_data), ("key", info.private_key_data)):
                file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(file, "wb") as stream:
                    stream.write(base64.b64decode(data))
                names.append(f"{folder}/{name}")
            context.load_cert_chain(*names)
    return context
