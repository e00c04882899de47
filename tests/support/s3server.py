"""A real S3 server in a process of its own: versitygw where there is one, else moto's server.

versitygw is taken from LMFT_VERSITYGW, the PATH, or the folder that ``tests/cluster/local/cluster build versitygw``
fills. Both check signatures and rights, which the tests rely on.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

BUCKET = "models"
_REGION = "us-east-1"
_START_SECONDS = 30


@dataclass(frozen=True)
class Keys:
    """An access key and its secret; with the token of a session if they are those of a role."""

    access: str
    secret: str
    token: str = ""


@dataclass(frozen=True)
class S3Server:
    """A running server with the bucket ``models``, an owner who may do all and a reader who may only read.

    ``role`` has the keys of a session of a role that may do all.
    """

    endpoint: str
    owner: Keys
    reader: Keys
    role: Keys
    folder: Path

    def client(self, keys: Keys | None = None, endpoint: str | None = None) -> Any:
        """A plain boto3 client."""
        import boto3

        keys = keys or self.owner
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=keys.access,
            aws_secret_access_key=keys.secret,
            region_name=_REGION,
        )

    def environment(self, keys: Keys | None = None, endpoint: str | None = None) -> dict[str, str]:
        """The AWS_* variables for a process that shall use it."""
        keys = keys or self.owner
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": keys.access,
            "AWS_SECRET_ACCESS_KEY": keys.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def secret(self, folder: Path, keys: Keys | None = None, endpoint: str | None = None) -> Path:
        """The same as files, as a mounted Secret shows them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in self.environment(keys, endpoint).items():
            if name != "AWS_EC2_METADATA_DISABLED":
                (folder / name).write_text(value + "\n")
        return folder


def find_versitygw() -> Path | None:
    """The versitygw to use, if there is one."""
    named = os.environ.get("LMFT_VERSITYGW") or shutil.which("versitygw")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = Path(os.environ.get("LMFT_CLUSTER_BIN") or cache / "lmft-cluster") / "versitygw"
    found = Path(named) if named else built
    return found if found.is_file() else None


def describe() -> str:
    """Which server the tests use."""
    found = find_versitygw()
    return f"S3 server: versitygw ({found})" if found else "S3 server: moto (no versitygw found)"


@contextmanager
def running(folder: Path, *, one_at_a_time: bool = False, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Starts a server that keeps its objects below the folder, and stops it afterwards.

    Args:
        folder: empty, the server's own.
        one_at_a_time: moto's server, which answers one request after the other, so that a conditional write is atomic
            as S3 promises it. versitygw's is not: of eight writers at once, two may win.
        host: the address to listen on; where it is of IPv6, versitygw is needed.
    """
    port = _free_port(host)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    program = None if one_at_a_time else find_versitygw()
    start = _start_versitygw if program else _start_moto_in_turn if one_at_a_time else _start_moto
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(**start(program, folder, address), stdout=log, stderr=log)
        try:
            _wait_for((host, port), process, folder / "server.log")
            endpoint = f"http://{address}"
            yield (_people_of_versitygw if program else _people_of_moto)(program, endpoint, folder)
        finally:
            process.kill()
            process.wait()


def _start_versitygw(program: Path | None, folder: Path, address: str) -> dict[str, Any]:
    for name in ("objects", "people"):
        (folder / name).mkdir()
    people = ["--iam-dir", str(folder / "people")]
    return {
        "args": [str(program), *people, "--port", address, "--quiet", "posix", str(folder / "objects")],
        "env": {**os.environ, "ROOT_ACCESS_KEY": "owner", "ROOT_SECRET_KEY": "ownersecret"},
    }


def _start_moto(program: Path | None, folder: Path, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", port]
    return {"args": command, "env": {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000000"}}


def _start_moto_in_turn(program: Path | None, folder: Path, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    start = (
        "from moto.server import DomainDispatcherApplication, create_backend_app\n"
        "from werkzeug.serving import run_simple\n"
        f"run_simple('{host}', {port}, DomainDispatcherApplication(create_backend_app))"
    )
    return _start_moto(program, folder, address) | {"args": [sys.executable, "-c", start]}


def _people_of_versitygw(program: Path | None, endpoint: str, folder: Path) -> S3Server:
    owner, reader = Keys("owner", "ownersecret"), Keys("reader", "readersecret")
    admin = [str(program), "admin", "--access", owner.access, "--secret", owner.secret, "--endpoint-url", endpoint]
    person = ["create-user", "--access", reader.access, "--secret", reader.secret, "--role", "user"]
    subprocess.run([*admin, *person], check=True, capture_output=True)
    server = S3Server(endpoint, owner, reader, replace(owner, token="not looked at"), folder)
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    statement = {"Effect": "Allow", "Principal": {"AWS": [reader.access]}, **_READING}
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    return server


def _people_of_moto(program: Path | None, endpoint: str, folder: Path) -> S3Server:
    import boto3

    iam, sts = (
        boto3.client(
            service, endpoint_url=endpoint, region_name=_REGION, aws_access_key_id="any", aws_secret_access_key="any"
        )
        for service in ("iam", "sts")
    )

    def role(name: str, statement: dict[str, Any]) -> Keys:
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})
        iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=policy)
        key = sts.assume_role(RoleArn=made["Arn"], RoleSessionName="session")["Credentials"]
        return Keys(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])

    def person(name: str, statement: dict[str, Any]) -> Keys:
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Keys(key["AccessKeyId"], key["SecretAccessKey"])

    everything = {"Action": "*", "Resource": "*"}
    server = S3Server(
        endpoint, person("owner", everything), person("reader", _READING), role("node-role", everything), folder
    )
    server.client().create_bucket(Bucket=BUCKET)
    # From now on moto checks signatures and rights.
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", plain, method="POST"))
    return server


_READING = {
    "Action": ["s3:GetObject", "s3:ListBucket"],
    "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
}


def _wait_for(at: tuple[str, int], process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(at):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
