"""A stand-in for the upload API of the Hugging Face hub, for tests.

No upload to the real hub has been run yet, and the tests never ask it. The double speaks what the hub's
client (huggingface_hub) sends when it uploads a folder: create a repository, preupload, Git LFS batch and upload,
commit. It does NOT speak Xet, the chunked storage that the client prefers for large files where hf_xet is installed:
tests with large files switch Xet off and so take the client's LFS path; that the Xet path works is not shown here.
What it checks as the real one does: the bearer token, that a repository exists, sizes and SHA-256 of LFS objects.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

TOKEN = "hf_write"
READ_ONLY_TOKEN = "hf_read"


@dataclass
class Repository:
    """One model repository: visibility, files by path, commits' messages."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class HubDouble:
    """Runs on a free port of the loopback; a context manager."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._failures: list[tuple[str, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubDouble":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, pattern: str, status: int, times: int = 1) -> None:
        """Answer the next requests whose "METHOD path" matches with a status."""
        self._failures += [(pattern, status)] * times

    def failure_for(self, request: str) -> int | None:
        """The status that this request was told to fail with; each is used once."""
        for index, (pattern, status) in enumerate(self._failures):
            if re.search(pattern, request):
                del self._failures[index]
                return status
        return None

    def answer(self, request: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON for a request."""
        self.requests.append(request)
        failure = self.failure_for(request)
        if failure is not None:
            return failure, {"error": "told to fail"}
        if request.startswith("PUT /lfs/"):
            oid = request.removeprefix("PUT /lfs/")
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {"error": "content does not match its name"}
            self.blobs[oid] = body
            return 200, {}
        if token not in (TOKEN, READ_ONLY_TOKEN):
            return 401, {"error": "Invalid credentials"}
        if request == "POST /api/repos/create":
            return self._create(json.loads(body), token)
        if request == "POST /api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        name = re.search(r" /(?:api/models/)?([^/]+/[^/.]+)", request)
        repository = self.repositories.get(name.group(1)) if name else None
        if name is None or repository is None:
            return 404, {"error": "Repository not found"}
        if request.startswith("GET ") and "/auth-check" not in request:
            return 200, {"id": name.group(1), "sha": f"{len(repository.commits):040d}", "siblings": [], "tags": []}
        if token != TOKEN:
            return 403, {"error": "You have read access only"}
        if "/auth-check" in request:
            return 200, {}
        if "/preupload/" in request:
            return 200, {"files": [_upload_mode(entry) for entry in json.loads(body)["files"]]}
        if request.endswith(".git/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._lfs(entry) for entry in json.loads(body)["objects"]]}
        if "/commit/" in request:
            return self._commit(name.group(1), repository, body)
        return 404, {"error": f"the double knows no {request}"}

    def _create(self, wanted: dict[str, Any], token: str) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if token != TOKEN:
            return 403, {"error": "You don't have the rights to create a model there"}
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.endpoint}/{name}"}
        self.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        return 200, {"url": f"{self.endpoint}/{name}", "name": name}

    def _lfs(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["oid"] in self.blobs:
            return entry
        return {**entry, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{entry['oid']}"}}}

    def _commit(self, name: str, repository: Repository, body: bytes) -> tuple[int, Any]:
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                repository.commits.append(value["summary"])
            elif key == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if len(self.blobs.get(value["oid"], b"")) != value["size"]:
                    return 400, {"error": f"{value['path']} was not uploaded"}
                repository.files[value["path"]] = self.blobs[value["oid"]]
        oid = f"{len(repository.commits):040d}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.endpoint}/{name}/commit/{oid}"}


def _upload_mode(entry: dict[str, Any]) -> dict[str, Any]:
    large = entry["size"] > 1_000 or entry["path"].endswith(".safetensors")
    return {"path": entry["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def _handler(hub: HubDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                body = self._chunks()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = hub.answer(f"{self.command} {path}", token, body)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: what was asked is in hub.requests."""

    return Handler
