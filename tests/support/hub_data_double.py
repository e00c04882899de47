"""A small stand-in for the hub's API: one tiny data set, one model, and names that answer with an HTTP error.

It doubles the answers that huggingface_hub and datasets ask for, no more; the real hub was not reached in the tests.
``team/status-503`` answers 503; ``team/reviews`` is a data set of two splits whose files ask for the token,
``team/model`` a model made of a folder's files.
"""

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = re.compile(r"/(?P<api>api/)?((datasets|models)/)?(?P<name>[^/]+/[^/]+)(?P<rest>/.*|)")
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
    repositories: dict[str, dict[str, bytes]]
    seen: list[str]
    pause: float

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
        elif not (found := _REPOSITORY.fullmatch(path)) or found["name"] not in self.repositories:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and path.rpartition("/")[2] not in ("main", COMMIT):
            self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        else:
            self._answer_about(found["name"], bool(found["api"]), found["rest"])

    def _answer_about(self, repository: str, api: bool, rest: str) -> None:
        files = self.repositories[repository]
        if (match := re.fullmatch(r"/resolve/[^/]+/(.+)", rest)) and not api:
            self._file(files, match[1])
        elif api and rest.startswith("/tree/"):
            self._json([self._entry(name, body) for name, body in files.items()])
        elif api and rest.startswith("/paths-info/"):
            self._json([self._entry(name, files[name]) for name in self._asked() if name in files])
        elif api and re.fullmatch(r"(/revision/[^/]+)?", rest):
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repository, "sha": COMMIT, "private": False, "gated": False, "siblings": siblings})
        else:
            self._send(404, b'{"error": "Entry not found"}', {"X-Error-Code": "EntryNotFound"})

    def _asked(self) -> list[str]:
        body = self.body.decode()
        if body.startswith("{"):
            paths = json.loads(body)["paths"]
            return paths if isinstance(paths, list) else [paths]
        return parse_qs(body).get("paths", [])

    def _entry(self, name: str, body: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}  # noqa: S324

    def _file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        body = files[name]
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
        if self.command == "HEAD":
            return
        for start in range(0, len(body), 1 << 20):
            self.wfile.write(body[start : start + (1 << 20)])
            time.sleep(self.pause)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def hub(model: Path | None = None, pause: float = 0.0) -> Iterator[tuple[str, list[str], dict[str, bytes]]]:
    """A running stand-in: its address, the requests it has seen, and the data set's files, to be changed at will.

    It pauses after each megabyte for so many seconds.
    """
    files = {"README.md": README.encode(), "train.parquet": _parquet(0, 100), "test.parquet": _parquet(100, 20)}
    seen: list[str] = []
    repositories = {"team/reviews": files}
    if model is not None:
        repositories["team/model"] = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    handler = type("Handler", (_Handler,), {"repositories": repositories, "seen": seen, "pause": pause})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen, files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
