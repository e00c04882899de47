"""A small stand-in for the hub's data API: one tiny data set, and names that answer with an HTTP error.

It doubles the answers that huggingface_hub and datasets ask for, no more; the real hub was not reached in the tests.
``team/status-503`` answers 503; ``team/reviews`` is a data set of two splits whose files ask for the token.
"""

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
README = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.parquet}
  - {split: test, path: test.parquet}
---
"""


def _parquet(first: int, count: int) -> bytes:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "answers": {"text": datasets.List(datasets.Value("string"))},
            "label": datasets.ClassLabel(names=["neg", "pos"]),
        }
    )
    numbers = range(first, first + count)
    columns = {
        "text": [f"review number {n} is a text" for n in numbers],
        "answers": [{"text": [f"answer {n}", "goes on"]} for n in numbers],
        "label": [n % 2 for n in numbers],
    }
    body = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(body)
    return body.getvalue()


class _Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    seen: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.seen.append(f"{self.command} {path} {self.headers.get('Authorization', '-')}")
        if match := re.search(r"/team/status-(\d+)", path):
            code = int(match[1])
            more = {"X-Error-Code": "GatedRepo"} if "gated" in path else {}
            self._send(code, json.dumps({"error": f"stand-in says {code}"}).encode(), more)
        elif "/team/reviews" not in path:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and path.rpartition("/")[2] not in ("main", COMMIT):
            self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        elif match := re.fullmatch(r"/datasets/team/reviews/resolve/[^/]+/(.+)", path):
            self._file(match[1])
        elif path.startswith("/api/datasets/team/reviews/tree/"):
            self._json([self._entry(name) for name in self.files])
        elif path.startswith("/api/datasets/team/reviews/paths-info/"):
            self._json([self._entry(name) for name in self._asked() if name in self.files])
        elif re.fullmatch(r"/api/datasets/team/reviews(/revision/[^/]+)?", path):
            siblings = [{"rfilename": name} for name in self.files]
            self._json({"id": "team/reviews", "sha": COMMIT, "private": False, "gated": False, "siblings": siblings})
        else:
            self._send(404, b'{"error": "Entry not found"}', {"X-Error-Code": "EntryNotFound"})

    def _asked(self) -> list[str]:
        body = self.body.decode()
        if body.startswith("{"):
            paths = json.loads(body)["paths"]
            return paths if isinstance(paths, list) else [paths]
        return parse_qs(body).get("paths", [])

    def _entry(self, name: str) -> dict[str, Any]:
        body = self.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}  # noqa: S324

    def _file(self, name: str) -> None:
        if name not in self.files:
            self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        body = self.files[name]
        more = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}  # noqa: S324
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            end = int(asked[2]) + 1 if asked[2] else len(body)
            more["Content-Range"] = f"bytes {asked[1]}-{end - 1}/{len(body)}"
            self._send(206, body[int(asked[1]) : end], more)
        else:
            self._send(200, body, more)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def hub() -> Iterator[tuple[str, list[str], dict[str, bytes]]]:
    """A running stand-in: its address, the requests it has seen, and its files, to be changed at will."""
    files = {"README.md": README.encode(), "train.parquet": _parquet(0, 100), "test.parquet": _parquet(100, 20)}
    seen: list[str] = []
    handler = type("Handler", (_Handler,), {"files": files, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen, files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
