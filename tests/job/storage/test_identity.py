"""Without keys: roles bound to a service account are found, the node's own role only where the platform lets it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.s3server import BUCKET, Keys, S3Server

from lmft_api.reasons import Reason
from lmft_job.errors import RefusedError
from lmft_job.storage import Store, open_store

UNTIL = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Cloud:
    """Stands for the addresses of a cloud that hand out keys: STS, EKS Pod Identity's agent, the metadata service."""

    address: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def cloud(s3: S3Server) -> Iterator[Cloud]:
    def answer(path: str, authorization: str | None, keys: Keys) -> str | None:
        body = {"AccessKeyId": keys.access, "SecretAccessKey": keys.secret, "Token": keys.token, "Expiration": UNTIL}
        if path == "/":
            return STS.format(access=keys.access, secret=keys.secret, token=keys.token, until=UNTIL)
        if path == "/v1/credentials":
            return json.dumps(body) if authorization == "pod token" else None
        if path == "/latest/api/token":
            return "metadata token"
        if path == "/latest/meta-data/iam/security-credentials/":
            return "node-role"
        return json.dumps(body | {"Code": "Success", "Type": "AWS-HMAC"})

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            found.asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            text = answer(self.path, self.headers.get("Authorization"), s3.role)
            self.send_response(403 if text is None else 200)
            self.send_header("Content-Length", str(len((text or "").encode())))
            self.end_headers()
            self.wfile.write((text or "").encode())

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Cloud(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch, s3: S3Server, cloud: Cloud, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a pod as the operator makes it, on a node that has a cloud role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.address,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def output(home: Path) -> Store:
    return open_store(f"s3://{BUCKET}/{home.name}")


def test_without_keys_the_nodes_role_is_not_asked_for_and_the_message_names_the_value(
    pod: pytest.MonkeyPatch, cloud: Cloud, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"without keys\. Set spec\.output\.credentialsSecretRef") as caught:
        output(tmp_path).probe_write()

    assert "unless the chart's job.nodeCloudRole is true" in str(caught.value)
    assert caught.value.reason is Reason.STORAGE_ACCESS_DENIED
    assert cloud.asked == []


def test_the_nodes_role_is_used_where_the_platform_lets_it(
    pod: pytest.MonkeyPatch, cloud: Cloud, tmp_path: Path
) -> None:
    pod.setenv("AWS_EC2_METADATA_DISABLED", "false")

    output(tmp_path).probe_write()

    assert "/latest/meta-data/iam/security-credentials/node-role" in cloud.asked


def test_eks_pod_identity_works(pod: pytest.MonkeyPatch, cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pod token")
    pod.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.address}/v1/credentials")
    pod.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))

    output(tmp_path).probe_write()

    assert set(cloud.asked) == {"/v1/credentials"}


def test_web_identity_works_whoever_signed_the_token(pod: pytest.MonkeyPatch, cloud: Cloud, tmp_path: Path) -> None:
    # A projected token of EKS, or of GKE's workload identity, that STS takes.
    (tmp_path / "token").write_text("header.claims.signature")
    pod.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    pod.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/team-a")
    pod.setenv("AWS_ENDPOINT_URL_STS", cloud.address)

    output(tmp_path).probe_write()

    assert set(cloud.asked) == {"/"}
