"""Services that speak S3 in their own way: Object Lock, which demands checksums, and one that ignores conditions."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.checkpoint_helpers import PART, folder, publish_steps, steps

from lmft_job.checkpoints import newest_verified
from lmft_job.storage import Store
from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.store import PURPOSES

CHECKSUMS = ("content-md5", "x-amz-checksum-crc32", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha256")
DEMAND = (
    "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object "
    "requests with Object Lock parameters</Message></Error>"
)


@dataclass
class Service:
    """Objects in memory, without signatures."""

    locked: bool
    conditions: bool
    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    state = Service(**request.param)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"x"')
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.locked and not any(name in self.headers for name in CHECKSUMS):
                state.refused += 1
                return self.answer(400, DEMAND.encode())
            if state.conditions and self.headers.get("If-None-Match") and self.path in state.objects:
                return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            state.objects[self.path] = body
            return self.answer(200)

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if "list-type=2" in query:
                return self.answer(200, listing(path, query, state.objects).encode())
            if path not in state.objects:
                return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return self.answer(200, state.objects[path])

        def do_HEAD(self) -> None:
            self.send_response(200 if self.path in state.objects else 404)
            self.send_header("Content-Length", str(len(state.objects.get(self.path, b""))))
            self.end_headers()

        def do_DELETE(self) -> None:
            state.objects.pop(self.path, None)
            self.answer(204)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def listing(bucket: str, query: str, objects: dict[str, bytes]) -> str:
    from urllib.parse import parse_qs

    prefix = parse_qs(query).get("prefix", [""])[0]
    keys = [key.removeprefix(f"{bucket.rstrip('/')}/") for key in objects]
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
        f"<Size>{len(objects[f'{bucket.rstrip(chr(47))}/{key}'])}</Size></Contents>"
        for key in sorted(keys)
        if key.startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"


def store_of(service: Service, home: Path) -> Store:
    secret = home / "secret"
    secret.mkdir()
    values = {"AWS_ENDPOINT_URL": service.endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in values.items():
        (secret / name).write_text(value)
    return S3Store.connect("bucket", "run", PURPOSES["output"], secret, S3Settings(part_bytes=PART, attempts=2))


@pytest.mark.parametrize("service", [{"locked": True, "conditions": True}], indirect=True)
def test_a_bucket_with_object_lock_gets_the_checksums_that_it_demands(service: Service, tmp_path: Path) -> None:
    store = store_of(service, tmp_path)

    store.probe_write()
    [made] = publish_steps(store, tmp_path, 20)

    assert newest_verified(store, tmp_path / "resume", print) == made
    assert service.refused == 1, "once refused, it is sent with every request"


@pytest.mark.parametrize("service", [{"locked": True, "conditions": True}], indirect=True)
def test_a_file_that_is_the_first_to_be_sent_there_is_sent_again(service: Service, tmp_path: Path) -> None:
    source = folder(tmp_path, 20) / "model.safetensors"

    store_of(service, tmp_path).put_file("a", source)

    assert service.objects["/bucket/run/a"] == source.read_bytes()


@pytest.mark.parametrize("service", [{"locked": False, "conditions": False}], indirect=True)
def test_a_service_that_ignores_conditions_is_told_of_once_and_asked_before_a_manifest_is_written(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(service, tmp_path)
    for child in (store, store.child("a"), store.child("b")):
        child.probe_write()

    [told] = [record.getMessage() for record in caplog.records if "If-None-Match" in record.getMessage()]
    assert told.startswith(f"{service.endpoint} ignores If-None-Match in bucket bucket")
    assert store.put_if_absent("x", b"mine")
    assert not store.put_if_absent("x", b"yours")
    assert store.get_bytes("x") == b"mine"
    publish_steps(store, tmp_path, 20)
    assert steps(store) == [(1, 20)]


@pytest.mark.parametrize("service", [{"locked": False, "conditions": True}], indirect=True)
def test_a_service_that_heeds_conditions_is_not_spoken_of(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store_of(service, tmp_path).probe_write()

    assert "If-None-Match" not in caplog.text
    assert service.objects == {}
